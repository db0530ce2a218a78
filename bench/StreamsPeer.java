// The Kafka Streams side of the streams rows: java -cp 'libs/*' StreamsPeer.java ROW BOOTSTRAP TOPIC EVENTS COMMIT_MS
// One stream thread, Jackson, RocksDB with changelog. Prints one line of JSON, as streams_app.py does.

import com.fasterxml.jackson.databind.ObjectMapper;
import java.lang.management.ManagementFactory;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.Deserializer;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.serialization.Serializer;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.KStream;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.kstream.TimeWindows;
import org.apache.kafka.streams.processor.StateRestoreListener;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.WindowStore;

public class StreamsPeer {
    public static class Sale {
        public long n;
        public String user;
        public double amount;
        public String country;
        public String device;
        public String note;
    }

    static final ObjectMapper JSON = new ObjectMapper();
    static long seen = 0, beganNs, endedNs, beganCpuNs, endedCpuNs;
    static final CountDownLatch done = new CountDownLatch(1);

    static long cpuNs() {
        return ((com.sun.management.OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean()).getProcessCpuTime();
    }

    static Serde<Sale> saleSerde() {
        Serializer<Sale> write = (topic, sale) -> {
            try {
                return JSON.writeValueAsBytes(sale);
            } catch (Exception error) {
                throw new RuntimeException(error);
            }
        };
        Deserializer<Sale> read = (topic, data) -> {
            try {
                return JSON.readValue(data, Sale.class);
            } catch (Exception error) {
                throw new RuntimeException(error);
            }
        };
        return Serdes.serdeFrom(write, read);
    }

    // Counts everything, then starts again with an empty directory and times the restore of the table.
    static void restore(StreamsBuilder builder, Properties settings, long events) throws Exception {
        try (KafkaStreams streams = new KafkaStreams(builder.build(), settings)) {
            streams.start();
            done.await();
            streams.close(Duration.ofSeconds(60));
        }
        settings.put(StreamsConfig.STATE_DIR_CONFIG, Files.createTempDirectory("bench-streams").toString());
        CountDownLatch restored = new CountDownLatch(1);
        long[] began = new long[2];
        long[] ended = new long[2];
        try (KafkaStreams streams = new KafkaStreams(builder.build(), settings)) {
            streams.setGlobalStateRestoreListener(new StateRestoreListener() {
                public void onRestoreStart(TopicPartition partition, String store, long start, long end) {
                    began[0] = System.nanoTime();
                    began[1] = cpuNs();
                }

                public void onBatchRestored(TopicPartition partition, String store, long end, long count) {}

                public void onRestoreEnd(TopicPartition partition, String store, long count) {
                    ended[0] = System.nanoTime();
                    ended[1] = cpuNs();
                    restored.countDown();
                }
            });
            streams.start();
            restored.await();
            long keys = Math.min(events, 1_000_000);
            double seconds = (ended[0] - began[0]) / 1e9;
            System.out.printf("{\"events_per_s\": %.1f, \"cpu_us_per_event\": %.3f, \"restore_s\": %.3f}%n",
                keys / seconds, (ended[1] - began[1]) / 1e3 / keys, seconds);
            System.out.flush();
            streams.close(Duration.ofSeconds(10));
        }
    }

    public static void main(String[] args) throws Exception {
        String row = args[0], bootstrap = args[1], topic = args[2];
        long events = Long.parseLong(args[3]), first = events / 4;
        String id = "bench-java-" + row + "-" + System.nanoTime();
        Path state = Files.createTempDirectory("bench-streams");
        Properties settings = new Properties();
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, id);
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, bootstrap);
        settings.put(StreamsConfig.STATE_DIR_CONFIG, state.toString());
        settings.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, args[4]);
        settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 1);
        settings.put(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG, "earliest");
        String out = id + "-out";
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", bootstrap))) {
            admin.createTopics(java.util.List.of(new NewTopic(out, 1, (short) 1))).all().get();
        }
        Serde<Sale> sales = saleSerde();
        StreamsBuilder builder = new StreamsBuilder();
        KStream<String, Sale> stream = builder.stream(topic, Consumed.with(Serdes.String(), sales)).peek((key, sale) -> {
            seen++;
            if (seen == first) {
                beganNs = System.nanoTime();
                beganCpuNs = cpuNs();
            } else if (seen == events) {
                endedNs = System.nanoTime();
                endedCpuNs = cpuNs();
                done.countDown();
            }
        });
        if (row.equals("map")) {
            stream.mapValues(sale -> {
                sale.amount *= 2;
                return sale;
            }).to(out, Produced.with(Serdes.String(), sales));
        } else if (row.equals("count") || row.equals("restore")) {
            stream.groupByKey(Grouped.with(Serdes.String(), sales)).count(
                Materialized.<String, Long, KeyValueStore<Bytes, byte[]>>as("counts"));
        } else if (row.equals("tumbling")) {
            stream.groupByKey(Grouped.with(Serdes.String(), sales))
                .windowedBy(TimeWindows.ofSizeWithNoGrace(Duration.ofSeconds(60)))
                .count(Materialized.<String, Long, WindowStore<Bytes, byte[]>>as("windows"));
        } else {
            throw new IllegalArgumentException(row);
        }
        if (row.equals("restore")) {
            restore(builder, settings, events);
            System.exit(0);
        }
        KafkaStreams streams = new KafkaStreams(builder.build(), settings);
        streams.setUncaughtExceptionHandler(error -> {
            error.printStackTrace();
            System.exit(1);
            return null;
        });
        streams.start();
        done.await();
        double seconds = (endedNs - beganNs) / 1e9;
        System.out.printf("{\"events_per_s\": %.1f, \"cpu_us_per_event\": %.3f}%n",
            (events - first) / seconds, (endedCpuNs - beganCpuNs) / 1e3 / (events - first));
        streams.close(Duration.ofSeconds(10));
        System.exit(0);
    }
}
