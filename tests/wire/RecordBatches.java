// The other side of test_records_java.py: Apache Kafka's own record classes write and read the same batches.
//
//   java -cp KAFKA_LIBS/* RecordBatches.java write DIR         one file per compression and size
//   java -cp KAFKA_LIBS/* RecordBatches.java read FILE...      one line per record

import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.HexFormat;
import org.apache.kafka.common.compress.Compression;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.record.internal.CompressionType;
import org.apache.kafka.common.record.internal.MemoryRecords;
import org.apache.kafka.common.record.internal.Record;
import org.apache.kafka.common.record.internal.RecordBatch;
import org.apache.kafka.common.record.internal.SimpleRecord;

public class RecordBatches {
    public static void main(String[] arguments) throws Exception {
        if (arguments[0].equals("write")) {
            for (CompressionType type : CompressionType.values())
                for (int count : new int[] {1, 100, 1000})
                    write(Path.of(arguments[1]), type, count);
        } else {
            for (String file : Arrays.copyOfRange(arguments, 1, arguments.length))
                read(Path.of(file));
        }
    }

    static void write(Path directory, CompressionType type, int count) throws Exception {
        SimpleRecord[] records = new SimpleRecord[count];
        for (int i = 0; i < count; i++) {
            byte[] key = i % 5 == 0 ? null : utf8("key-" + i);
            byte[] value = i % 7 == 3 ? null : utf8(("value-" + i + ";").repeat(i % 50));
            Header[] headers = i % 4 != 1 ? new Header[0] : new Header[] {
                new RecordHeader("h\u00e4", utf8("v" + i)), new RecordHeader("n", (byte[]) null)};
            records[i] = new SimpleRecord(1_700_000_000_000L + (i * 37) % 101, key, value, headers);
        }
        MemoryRecords batch = MemoryRecords.withIdempotentRecords(
            RecordBatch.MAGIC_VALUE_V2, 42L, Compression.of(type).build(), 7L, (short) 3, 11, 5, records);
        byte[] bytes = new byte[batch.sizeInBytes()];
        batch.buffer().duplicate().get(bytes);
        Files.write(directory.resolve(type.name + "-" + count), bytes);
    }

    static void read(Path file) throws Exception {
        StringBuilder out = new StringBuilder();
        for (RecordBatch batch : MemoryRecords.readableRecords(ByteBuffer.wrap(Files.readAllBytes(file))).batches()) {
            batch.ensureValid();
            out.append("batch ").append(batch.baseOffset()).append(' ').append(batch.lastOffset()).append(' ')
                .append(batch.compressionType().name).append(' ').append(batch.timestampType().name).append(' ')
                .append(batch.maxTimestamp()).append(' ').append(batch.producerId()).append(' ')
                .append(batch.producerEpoch()).append(' ').append(batch.baseSequence()).append(' ')
                .append(batch.lastSequence()).append(' ').append(batch.partitionLeaderEpoch()).append(' ')
                .append(batch.isTransactional()).append(' ').append(batch.isControlBatch()).append(' ')
                .append(batch.deleteHorizonMs().orElse(-1)).append('\n');
            for (Record record : batch) {
                out.append(record.offset()).append(' ').append(record.timestamp()).append(' ')
                    .append(hex(record.key())).append(' ').append(hex(record.value()));
                for (Header header : record.headers())
                    out.append(' ').append(HexFormat.of().formatHex(utf8(header.key()))).append('=')
                        .append(header.value() == null ? "null" : HexFormat.of().formatHex(header.value()));
                out.append('\n');
            }
        }
        System.out.print(out);
    }

    static byte[] utf8(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    static String hex(ByteBuffer buffer) {
        if (buffer == null)
            return "null";
        byte[] bytes = new byte[buffer.remaining()];
        buffer.duplicate().get(bytes);
        return "x" + HexFormat.of().formatHex(bytes);
    }
}
