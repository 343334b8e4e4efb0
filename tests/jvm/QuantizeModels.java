import ai.onnxruntime.OnnxTensor;
import ai.onnxruntime.OnnxValue;
import ai.onnxruntime.OrtEnvironment;
import ai.onnxruntime.OrtException;
import ai.onnxruntime.OrtSession;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.FloatBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;

/**
 * Quantises floats with a model, runs a graph on the tensor that comes out, and dequantises.
 *
 * <p>{@code QuantizeModels FOLDER} reads the lines of FOLDER/cases.txt. A line names a case, its
 * type, the bits of its scale (hexadecimal) and its zero point, and the same three of what the
 * graph gives; a case whose graph is "-" is dequantised as it is. NAME.x holds the floats, their
 * shape stands in NAME.shape. Written are NAME.stored, NAME.result (both as the graph has them) and
 * NAME.y, floats. Numbers are little-endian.
 */
public final class QuantizeModels implements AutoCloseable {
    private final OrtEnvironment environment = OrtEnvironment.getEnvironment();
    private final Path folder;

    private QuantizeModels(Path folder) {
        this.folder = folder;
    }

    public static void main(String[] arguments) throws IOException, OrtException {
        try (QuantizeModels models = new QuantizeModels(Path.of(arguments[0]))) {
            for (String line : Files.readAllLines(models.folder.resolve("cases.txt"))) {
                models.run(line.split(" "));
            }
        }
    }

    /** A type, a scale and a zero point, as a line of cases.txt has them. */
    private record Quantization(String dtype, float scale, int zeroPoint) {
        static Quantization of(String[] words, int start) {
            return new Quantization(
                    words[start],
                    Float.intBitsToFloat(Integer.parseUnsignedInt(words[start + 1], 16)),
                    Integer.parseInt(words[start + 2]));
        }
    }

    private void run(String[] words) throws IOException, OrtException {
        String name = words[0];
        Quantization input = Quantization.of(words, 1);
        Quantization output = Quantization.of(words, 5);
        FloatBuffer floats = read(name + ".x").asFloatBuffer();
        try (OnnxTensor x = OnnxTensor.createTensor(environment, floats, shapeOf(name));
                OrtSession quantize = open(input.dtype + "_quantize.onnx");
                OrtSession dequantize = open(output.dtype + "_dequantize.onnx");
                OrtSession.Result quantized = convert(quantize, x, input)) {
            OnnxTensor stored = (OnnxTensor) quantized.get(0);
            write(name + ".stored", stored.getByteBuffer());
            if (words[4].equals("-")) {
                dequantize(name, dequantize, stored, output);
                return;
            }
            // The Result stays open while the graph reads its tensor.
            try (OrtSession graph = open(words[4]);
                    OrtSession.Result results = graph.run(Map.of("sample", stored))) {
                OnnxTensor result = (OnnxTensor) results.get(0);
                write(name + ".result", result.getByteBuffer());
                dequantize(name, dequantize, result, output);
            }
        }
    }

    private void dequantize(String name, OrtSession session, OnnxTensor stored, Quantization how)
            throws IOException, OrtException {
        try (OrtSession.Result floats = convert(session, stored, how)) {
            write(name + ".y", ((OnnxTensor) floats.get(0)).getByteBuffer());
        }
    }

    private OrtSession.Result convert(OrtSession session, OnnxTensor x, Quantization how)
            throws OrtException {
        try (OnnxTensor scale = OnnxTensor.createTensor(environment, how.scale);
                OnnxTensor zeroPoint = OnnxTensor.createTensor(environment, how.zeroPoint)) {
            return session.run(Map.of("x", x, "scale", scale, "zero_point", zeroPoint));
        }
    }

    private OrtSession open(String file) throws OrtException {
        return environment.createSession(folder.resolve(file).toString());
    }

    private long[] shapeOf(String name) throws IOException {
        String[] sizes = Files.readString(folder.resolve(name + ".shape")).trim().split(" ");
        long[] shape = new long[sizes.length];
        for (int axis = 0; axis < sizes.length; axis++) {
            shape[axis] = Long.parseLong(sizes[axis]);
        }
        return shape;
    }

    private ByteBuffer read(String file) throws IOException {
        byte[] content = Files.readAllBytes(folder.resolve(file));
        ByteBuffer buffer = ByteBuffer.allocateDirect(content.length);
        return buffer.order(ByteOrder.nativeOrder()).put(content).rewind();
    }

    private void write(String file, ByteBuffer buffer) throws IOException {
        byte[] content = new byte[buffer.remaining()];
        buffer.get(content);
        Files.write(folder.resolve(file), content);
    }

    @Override
    public void close() {
        environment.close();
    }
}
