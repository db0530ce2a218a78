import java.io.ByteArrayOutputStream;
import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.EOFException;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;

import org.apache.kafka.common.utils.Exit;

/**
 * Runs the `main` of Kafka's command line tools, one after another in one JVM: starting a JVM takes longer than most
 * of them run.
 *
 * Question: count of strings i32, then each as length u16 and UTF-8: the class and its arguments.
 * Answer: exit code i32, then stdout and stderr, each as length i32 and UTF-8.
 */
public class KafkaTools {
    static final class Ended extends RuntimeException {
        final int code;

        Ended(int code) {
            super(null, null, false, false);
            this.code = code;
        }
    }

    public static void main(String[] ignored) throws Exception {
        DataInputStream in = new DataInputStream(System.in);
        DataOutputStream out = new DataOutputStream(System.out);
        // Some tools catch whatever is thrown and exit again: what they said first counts.
        int[] first = new int[1];
        Exit.Procedure exit = (code, message) -> {
            if (first[0] < 0) first[0] = code;
            throw new Ended(code);
        };
        Exit.setExitProcedure(exit);
        Exit.setHaltProcedure(exit);
        while (true) {
            String[] words;
            try {
                words = new String[in.readInt()];
            } catch (EOFException end) {
                Runtime.getRuntime().halt(0);
                return;
            }
            for (int i = 0; i < words.length; i++) words[i] = in.readUTF();
            ByteArrayOutputStream stdout = new ByteArrayOutputStream(), stderr = new ByteArrayOutputStream();
            PrintStream realOut = System.out, realErr = System.err;
            System.setOut(new PrintStream(stdout, true));
            System.setErr(new PrintStream(stderr, true));
            int code = 0;
            first[0] = -1;
            try {
                String[] arguments = java.util.Arrays.copyOfRange(words, 1, words.length);
                // Tools written in Scala print to scala.Console, which follows System.out only when told.
                Class<?> tool = Class.forName(words[0]);
                scala.Console.withOut(System.out, () -> {
                    try {
                        tool.getMethod("main", String[].class).invoke(null, (Object) arguments);
                    } catch (ReflectiveOperationException error) {
                        if (error.getCause() instanceof Ended) throw (Ended) error.getCause();
                        throw new RuntimeException(error);
                    }
                    return null;
                });
            } catch (Ended ended) {
                code = ended.code;
            } catch (Throwable error) {
                error.printStackTrace(System.err);
                code = 1;
            } finally {
                System.setOut(realOut);
                System.setErr(realErr);
            }
            out.writeInt(first[0] >= 0 ? first[0] : code);
            for (ByteArrayOutputStream text : new ByteArrayOutputStream[] {stdout, stderr}) {
                byte[] bytes = text.toString().getBytes(StandardCharsets.UTF_8);
                out.writeInt(bytes.length);
                out.write(bytes);
            }
            out.flush();
        }
    }
}
