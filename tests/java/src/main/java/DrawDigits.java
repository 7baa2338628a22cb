import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.Map;
import java.util.TreeMap;
import java.util.stream.Stream;
import org.tensorflow.Result;
import org.tensorflow.SavedModelBundle;
import org.tensorflow.Signature;
import org.tensorflow.Tensor;
import org.tensorflow.types.TInt64;
import org.tensorflow.types.TString;

/** Loads a SavedModel, prints its signatures, and writes the PNG of each seed and digit. */
public final class DrawDigits {
  private DrawDigits() {}

  /**
   * Draws one image per row.
   *
   * @param args the SavedModel's folder, the folder for `0.png`, `1.png`, ..., and the rows, each `seed:digit`.
   */
  public static void main(String[] args) throws Exception {
    Path folder = Path.of(args[1]);
    try (SavedModelBundle model = SavedModelBundle.load(args[0], "serve")) {
      for (Signature signature : model.signatures()) {
        System.out.println(describe(signature));
      }
      String[] rows = Arrays.copyOfRange(args, 2, args.length);
      long[] seeds = Stream.of(rows).mapToLong(row -> Long.parseLong(row.split(":")[0])).toArray();
      long[] digits = Stream.of(rows).mapToLong(row -> Long.parseLong(row.split(":")[1])).toArray();
      try (Tensor seed = TInt64.vectorOf(seeds);
          Tensor digit = TInt64.vectorOf(digits);
          Result drawn = model.function("serving_default").call(Map.of("seed", seed, "digit", digit))) {
        var images = ((TString) drawn.get("image_bytes").orElseThrow()).asBytes();
        for (int row = 0; row < rows.length; row++) {
          Files.write(folder.resolve(row + ".png"), images.getObject(row));
        }
      }
    }
  }

  private static String describe(Signature signature) {
    return signature.key() + " " + sorted(signature.getInputs()) + " -> " + sorted(signature.getOutputs());
  }

  private static String sorted(Map<String, Signature.TensorDescription> tensors) {
    var described = new TreeMap<String, String>();
    tensors.forEach((name, tensor) -> described.put(name, tensor.dataType.name() + " " + tensor.shape));
    return described.toString();
  }
}
