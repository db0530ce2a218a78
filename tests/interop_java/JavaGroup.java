import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.List;
import java.util.Properties;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.concurrent.ConcurrentSkipListMap;
import java.util.concurrent.Future;
import java.util.concurrent.atomic.AtomicInteger;

import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.RebalanceInProgressException;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * Kafka's own clients doing a day's work: an idempotent producer writes numbered messages, while consumers of one
 * group come (one, two, three) and go (one closes). Every message has to be read, from the offset it was given, and
 * committed; a partition never has two owners. Arguments: address, topic, partitions, assignor class, messages.
 */
public class JavaGroup {
    static String address, topic, assignor;
    static int messages;
    static final ConcurrentSkipListMap<String, String> seen = new ConcurrentSkipListMap<>();
    static final AtomicInteger repeated = new AtomicInteger(), rebalances = new AtomicInteger();
    static final ConcurrentSkipListMap<Integer, String> owners = new ConcurrentSkipListMap<>();
    static volatile String problem;

    static class Member extends Thread {
        volatile boolean stop;
        volatile int owned;

        Member(String name) {
            super(name);
            start();
        }

        @Override
        public void run() {
            Properties settings = new Properties();
            settings.put("bootstrap.servers", address);
            settings.put("group.id", "java");
            settings.put("client.id", getName());
            settings.put("auto.offset.reset", "earliest");
            settings.put("enable.auto.commit", "false");
            settings.put("heartbeat.interval.ms", "200");
            settings.put("session.timeout.ms", "10000");
            settings.put("partition.assignment.strategy", assignor);
            try (KafkaConsumer<String, String> consumer =
                    new KafkaConsumer<>(settings, new StringDeserializer(), new StringDeserializer())) {
                consumer.subscribe(List.of(topic), new ConsumerRebalanceListener() {
                    @Override
                    public void onPartitionsAssigned(Collection<TopicPartition> partitions) {
                        rebalances.incrementAndGet();
                        for (TopicPartition one : partitions) {
                            String other = owners.putIfAbsent(one.partition(), getName());
                            if (other != null) problem = one + " belongs to " + other + " and " + getName();
                        }
                        owned += partitions.size();
                    }

                    @Override
                    public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
                        commit(consumer);
                        for (TopicPartition one : partitions) owners.remove(one.partition(), getName());
                        owned -= partitions.size();
                    }
                });
                while (!stop) {
                    for (ConsumerRecord<String, String> record : consumer.poll(Duration.ofMillis(50))) {
                        String at = record.partition() + "@" + record.offset();
                        if (seen.put(record.value(), at) != null) repeated.incrementAndGet();
                    }
                    commit(consumer);
                }
            } catch (Throwable error) {
                problem = getName() + ": " + error;
            }
        }
    }

    static void commit(KafkaConsumer<String, String> consumer) {
        try {
            consumer.commitSync();
        } catch (RebalanceInProgressException later) {
            // A cooperative member that is rebalancing says so; the next commit covers this one.
        }
    }

    static void until(java.util.function.BooleanSupplier condition, String what) throws Exception {
        long deadline = System.nanoTime() + 40_000_000_000L;
        while (!condition.getAsBoolean() && problem == null) {
            if (System.nanoTime() > deadline) problem = "no " + what + " within 40 s; owners: " + owners;
            Thread.sleep(10);
        }
        if (problem != null) {
            System.out.println("PROBLEM " + problem);
            Runtime.getRuntime().halt(1);
        }
    }

    public static void main(String[] arguments) throws Exception {
        address = arguments[0];
        topic = arguments[1];
        int partitions = Integer.parseInt(arguments[2]);
        assignor = arguments[3];
        messages = Integer.parseInt(arguments[4]);
        Properties settings = new Properties();
        settings.put("bootstrap.servers", address);
        settings.put("acks", "all");
        settings.put("enable.idempotence", "true");
        settings.put("linger.ms", "5");
        settings.put("compression.type", "lz4");
        List<Member> members = new ArrayList<>();
        TreeMap<String, String> sent = new TreeMap<>();
        try (KafkaProducer<String, String> producer =
                new KafkaProducer<>(settings, new StringSerializer(), new StringSerializer())) {
            for (int round = 0; round < 4; round++) {
                if (round < 3) members.add(new Member("member-" + round));
                else {
                    Member leaving = members.remove(0);
                    leaving.stop = true;
                    leaving.join();
                }
                until(() -> owners.size() == partitions && members.stream().allMatch(one -> one.owned > 0), "sharing");
                List<Future<RecordMetadata>> pending = new ArrayList<>();
                for (int i = 0; i < messages / 4; i++) {
                    String value = "message-" + round + "-" + i;
                    pending.add(producer.send(new ProducerRecord<>(topic, "key-" + i, value)));
                }
                for (int i = 0; i < pending.size(); i++) {
                    RecordMetadata placed = pending.get(i).get();
                    sent.put("message-" + round + "-" + i, placed.partition() + "@" + placed.offset());
                }
            }
            until(() -> seen.size() == sent.size(), "reading of everything");
        }
        for (Member one : members) one.stop = true;
        for (Member one : members) one.join();
        until(() -> true, "end");
        System.out.println("EQUAL " + seen.equals(sent) + " SENT " + sent.size() + " REPEATED " + repeated
            + " REBALANCES " + rebalances);
        settings.put("group.id", "java");
        try (KafkaConsumer<String, String> reader =
                new KafkaConsumer<>(settings, new StringDeserializer(), new StringDeserializer())) {
            TreeSet<TopicPartition> all =
                new TreeSet<>((a, b) -> Integer.compare(a.partition(), b.partition()));
            for (int i = 0; i < partitions; i++) all.add(new TopicPartition(topic, i));
            long committed = 0;
            for (OffsetAndMetadata one : reader.committed(all).values()) committed += one.offset();
            System.out.println("COMMITTED " + committed);
        }
    }
}
