import com.helger.io.resource.FileSystemResource;
import com.helger.phive.api.executorset.ValidationExecutorSetRegistry;
import com.helger.phive.api.validity.IValidityDeterminator;
import com.helger.phive.en16931.EN16931Validation;
import com.helger.phive.xml.source.IValidationSourceXML;
import com.helger.phive.xml.source.ValidationSourceXML;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Locale;
import java.util.TreeSet;
import java.util.stream.Stream;

/**
 * Prints which rules of EN 16931 the documents of a folder violate, with the official validation
 * artefacts. Each document has a line of its name, a tab, and the rules, separated by spaces. A
 * schema error is the rule XSD.
 */
final class Judge {
  private static final IValidityDeterminator<IValidationSourceXML> VALIDITY = IValidityDeterminator.createDefault();

  public static void main(String[] arguments) throws IOException {
    var registry = new ValidationExecutorSetRegistry<IValidationSourceXML>();
    EN16931Validation.initEN16931(registry);
    try (Stream<Path> files = Files.list(Path.of(arguments[0]))) {
      for (Path file : files.sorted().toList()) {
        System.out.println(file.getFileName() + "\t" + String.join(" ", broken(registry, file)));
      }
    }
  }

  /** Each executor validates independently, so the rules also run on documents with schema errors. */
  private static TreeSet<String> broken(
      ValidationExecutorSetRegistry<IValidationSourceXML> registry, Path file) throws IOException {
    String text = Files.readString(file);
    var id =
        text.contains("CrossIndustryInvoice")
            ? EN16931Validation.VID_CII_1316
            : text.contains("CreditNote-2")
                ? EN16931Validation.VID_UBL_CREDIT_NOTE_1316
                : EN16931Validation.VID_UBL_INVOICE_1316;
    var source = ValidationSourceXML.create(new FileSystemResource(file.toFile()));
    var rules = new TreeSet<String>();
    for (var part : registry.getOfID(id).getAllExecutors()) {
      for (var error : part.applyValidation(source, VALIDITY, Locale.ROOT).getErrorList()) {
        if (error.isError()) {
          String rule = error.getErrorID();
          rules.add(rule != null && rule.matches("[A-Z]+(-[A-Z0-9]+)+") ? rule : "XSD");
        }
      }
    }
    return rules;
  }
}
