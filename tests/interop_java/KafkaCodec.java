import java.io.BufferedInputStream;
import java.io.BufferedOutputStream;
import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.EOFException;
import java.nio.ByteBuffer;
import org.apache.kafka.common.protocol.ByteBufferAccessor;
import org.apache.kafka.common.protocol.Message;
import org.apache.kafka.common.protocol.ObjectSerializationCache;

/**
 * Answers questions about messages with Kafka's own generated classes.
 *
 * Question: name (writeUTF), version (short), length (int; -1 asks for the message with every field at its default), bytes.
 * Answer: length of the bytes that Kafka writes for what it read (int), how many bytes it left unread (int), bytes;
 * or -1 and what went wrong (writeUTF).
 */
public class KafkaCodec {
    private static final String[] HOMES = {
        "org.apache.kafka.common.message.%sData",
        "org.apache.kafka.common.message.%s",
        "org.apache.kafka.common.metadata.%s",
        "org.apache.kafka.coordinator.group.generated.%s",
        "org.apache.kafka.coordinator.transaction.generated.%s",
        "org.apache.kafka.coordinator.share.generated.%s",
        "org.apache.kafka.raft.generated.%sData",
    };

    private static Message blank(String name) throws Exception {
        for (String home : HOMES) {
            try {
                return (Message) Class.forName(String.format(home, name)).getDeclaredConstructor().newInstance();
            } catch (ClassNotFoundException e) {
                // the next home
            }
        }
        throw new ClassNotFoundException(name);
    }

    public static void main(String[] args) throws Exception {
        DataInputStream in = new DataInputStream(new BufferedInputStream(System.in));
        DataOutputStream out = new DataOutputStream(new BufferedOutputStream(System.out));
        while (true) {
            String name;
            try {
                name = in.readUTF();
            } catch (EOFException e) {
                return;
            }
            short version = in.readShort();
            int length = in.readInt();
            byte[] bytes = new byte[Math.max(length, 0)];
            in.readFully(bytes);
            try {
                Message message = blank(name);
                ByteBuffer input = ByteBuffer.wrap(bytes);
                if (length >= 0) {
                    message.read(new ByteBufferAccessor(input), version);
                }
                ObjectSerializationCache cache = new ObjectSerializationCache();
                ByteBuffer output = ByteBuffer.allocate(message.size(cache, version));
                message.write(new ByteBufferAccessor(output), cache, version);
                out.writeInt(output.capacity());
                out.writeInt(input.remaining());
                out.write(output.array());
            } catch (Throwable e) {
                out.writeInt(-1);
                String text = e.toString();
                out.writeUTF(text.substring(0, Math.min(text.length(), 2000)));
            }
            out.flush();
        }
    }
}
