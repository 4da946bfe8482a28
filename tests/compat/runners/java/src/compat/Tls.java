package compat;

import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.net.URLDecoder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.GeneralSecurityException;
import java.security.KeyFactory;
import java.security.KeyStore;
import java.security.PrivateKey;
import java.security.cert.Certificate;
import java.security.cert.CertificateFactory;
import java.security.spec.PKCS8EncodedKeySpec;
import java.util.ArrayList;
import java.util.Base64;
import java.util.List;
import java.util.Optional;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import javax.net.ssl.KeyManager;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManager;
import javax.net.ssl.TrustManagerFactory;

/** The Java driver reads no PEM files: tlsCAFile and tlsCertificateKeyFile become an SSLContext. */
final class Tls {
    private static final char[] NO_PASSWORD = new char[0];
    private static final Pattern BLOCK = Pattern.compile(
            "-----BEGIN (CERTIFICATE|PRIVATE KEY)-----(.*?)-----END \\1-----", Pattern.DOTALL);

    private Tls() {}

    static Optional<SSLContext> contextOf(String uri) {
        Optional<String> authorities = option(uri, "tlsCAFile");
        Optional<String> own = option(uri, "tlsCertificateKeyFile");
        if (authorities.isEmpty() && own.isEmpty()) {
            return Optional.empty();
        }
        try {
            SSLContext context = SSLContext.getInstance("TLS");
            TrustManager[] trust = authorities.isPresent() ? trust(authorities.get()) : null;
            KeyManager[] keys = own.isPresent() ? keys(own.get()) : null;
            context.init(keys, trust, null);
            return Optional.of(context);
        } catch (GeneralSecurityException | IOException failure) {
            throw new IllegalArgumentException(failure);
        }
    }

    private static Optional<String> option(String uri, String name) {
        Matcher found = Pattern.compile("[?&]" + name + "=([^&]*)").matcher(uri);
        return found.find()
                ? Optional.of(URLDecoder.decode(found.group(1), StandardCharsets.UTF_8))
                : Optional.empty();
    }

    private static TrustManager[] trust(String file) throws GeneralSecurityException, IOException {
        KeyStore store = emptyStore();
        List<Certificate> certificates = certificates(file);
        for (int i = 0; i < certificates.size(); i++) {
            store.setCertificateEntry("ca" + i, certificates.get(i));
        }
        TrustManagerFactory factory =
                TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        factory.init(store);
        return factory.getTrustManagers();
    }

    private static KeyManager[] keys(String file) throws GeneralSecurityException, IOException {
        List<Certificate> chain = certificates(file);
        String algorithm = chain.get(0).getPublicKey().getAlgorithm();
        byte[] encoded = blocks(file, "PRIVATE KEY").get(0);
        PrivateKey key =
                KeyFactory.getInstance(algorithm).generatePrivate(new PKCS8EncodedKeySpec(encoded));
        KeyStore store = emptyStore();
        store.setKeyEntry("own", key, NO_PASSWORD, chain.toArray(Certificate[]::new));
        KeyManagerFactory factory =
                KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm());
        factory.init(store, NO_PASSWORD);
        return factory.getKeyManagers();
    }

    private static KeyStore emptyStore() throws GeneralSecurityException, IOException {
        KeyStore store = KeyStore.getInstance("PKCS12");
        store.load(null, null);
        return store;
    }

    private static List<Certificate> certificates(String file)
            throws GeneralSecurityException, IOException {
        CertificateFactory factory = CertificateFactory.getInstance("X.509");
        List<Certificate> certificates = new ArrayList<>();
        for (byte[] encoded : blocks(file, "CERTIFICATE")) {
            try (InputStream in = new ByteArrayInputStream(encoded)) {
                certificates.add(factory.generateCertificate(in));
            }
        }
        return certificates;
    }

    private static List<byte[]> blocks(String file, String kind) throws IOException {
        Matcher block = BLOCK.matcher(Files.readString(Path.of(file)));
        List<byte[]> found = new ArrayList<>();
        while (block.find()) {
            if (block.group(1).equals(kind)) {
                found.add(Base64.getMimeDecoder().decode(block.group(2)));
            }
        }
        return found;
    }
}
