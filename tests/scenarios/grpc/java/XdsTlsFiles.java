import io.grpc.ChannelCredentials;
import io.grpc.TlsChannelCredentials;
import io.grpc.util.AdvancedTlsX509KeyManager;
import io.grpc.util.AdvancedTlsX509TrustManager;
import io.grpc.xds.XdsCredentialsProvider;
import java.io.File;
import java.io.IOException;
import java.security.GeneralSecurityException;
import java.util.Map;
import java.util.concurrent.Executors;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.TimeUnit;

/**
 * TLS to the registry for Java, whose credentials of the type "tls" ignore the files that the bootstrap names.
 *
 * <p>The file META-INF/services/io.grpc.xds.XdsCredentialsProvider names this class. The files are read again once a
 * minute, so that a renewed certificate is used without a restart.
 */
public class XdsTlsFiles extends XdsCredentialsProvider {
  private static final long REFRESH_SECONDS = 60;

  @Override
  protected ChannelCredentials newChannelCredentials(Map<String, ?> config) {
    if (config == null || !config.containsKey("ca_certificate_file")) {
      return TlsChannelCredentials.create();
    }
    ScheduledExecutorService timer =
        Executors.newSingleThreadScheduledExecutor(
            work -> {
              Thread thread = new Thread(work, "xds-tls-files");
              thread.setDaemon(true);
              return thread;
            });
    try {
      AdvancedTlsX509TrustManager trust = AdvancedTlsX509TrustManager.newBuilder().build();
      trust.updateTrustCredentials(file(config, "ca_certificate_file"), REFRESH_SECONDS, TimeUnit.SECONDS, timer);
      TlsChannelCredentials.Builder builder = TlsChannelCredentials.newBuilder().trustManager(trust);
      if (config.containsKey("certificate_file")) {
        AdvancedTlsX509KeyManager identity = new AdvancedTlsX509KeyManager();
        identity.updateIdentityCredentials(
            file(config, "certificate_file"), file(config, "private_key_file"), REFRESH_SECONDS, TimeUnit.SECONDS, timer);
        builder.keyManager(identity);
      }
      return builder.build();
    } catch (GeneralSecurityException | IOException error) {
      throw new IllegalArgumentException("the files of the xDS credentials can't be read", error);
    }
  }

  private static File file(Map<String, ?> config, String name) {
    return new File((String) config.get(name));
  }

  @Override
  protected String getName() {
    return "tls";
  }

  @Override
  public boolean isAvailable() {
    return true;
  }

  @Override
  public int priority() {
    return 6; // gRPC's own provider of this name has 5.
  }
}
