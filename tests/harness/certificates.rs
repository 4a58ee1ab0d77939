//! Certificates for one test: an authority with a server and a client, and another authority that nobody trusts.

use std::fs;
use std::process::Command;

use tempfile::TempDir;

/// A certificate and its key, as the paths of two PEM files.
#[derive(Debug, Clone)]
pub struct CertificateFiles {
    pub certificate: String,
    pub key: String,
}

#[derive(Debug)]
pub struct Certificates {
    directory: TempDir,
}

/// Without it openssl would make everybody an authority.
const CONFIGURATION: &str = "\
[req]
distinguished_name = name
[name]
[authority]
basicConstraints = critical, CA:TRUE
[member]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth, clientAuth
subjectAltName = DNS:localhost, IP:127.0.0.1
[elsewhere]
basicConstraints = critical, CA:FALSE
extendedKeyUsage = serverAuth, clientAuth
subjectAltName = DNS:db.example
[ca]
default_ca = past
[past]
database = $ENV::DIRECTORY/past.db
new_certs_dir = $ENV::DIRECTORY
rand_serial = yes
default_md = sha256
policy = names
[names]
commonName = supplied
";

impl Certificates {
    pub fn new() -> Certificates {
        let directory = tempfile::Builder::new().prefix("elect-tls-").tempdir().expect("a temporary directory");
        let certificates = Certificates { directory };
        fs::write(certificates.path("openssl.cnf"), CONFIGURATION).expect("an empty directory takes a file");
        for authority in ["ca", "other-ca"] {
            certificates.make(authority, None);
        }
        certificates.make("server", Some("ca"));
        certificates.make("self-signed", None);
        certificates.make("other-self-signed", None);
        certificates.make("elsewhere", Some("ca"));
        certificates.make_with("p521", Some("ca"), "P-521");
        // The name in a client's certificate may be a user for a server that asks for users.
        certificates.make("elect", Some("ca"));
        certificates.make("other", Some("other-ca"));
        certificates
    }

    /// The authority that server and client belong to.
    pub fn ca(&self) -> String {
        self.path("ca.crt")
    }

    /// One that has signed neither.
    pub fn other_ca(&self) -> String {
        self.path("other-ca.crt")
    }

    /// For `localhost` and 127.0.0.1.
    pub fn server(&self) -> CertificateFiles {
        self.identity("server")
    }

    /// A client by the name of `elect`.
    pub fn client(&self) -> CertificateFiles {
        self.identity("elect")
    }

    /// A server whose certificate is its own authority, as `openssl req -x509` makes it.
    pub fn self_signed(&self) -> CertificateFiles {
        self.identity("self-signed")
    }

    /// Another one by the same name.
    pub fn other_self_signed(&self) -> CertificateFiles {
        self.identity("other-self-signed")
    }

    /// A server with a key on P-521, as some servers make it for themselves.
    pub fn p521(&self) -> CertificateFiles {
        self.identity("p521")
    }

    /// A client of the other authority.
    pub fn other_client(&self) -> CertificateFiles {
        self.identity("other")
    }

    /// A server whose certificate was valid for a day, years ago.
    pub fn expired(&self) -> CertificateFiles {
        let files = self.identity("expired");
        let CertificateFiles { certificate: ca, key: ca_key } = self.identity("ca");
        let (request, configuration) = (self.path("expired.csr"), self.path("openssl.cnf"));
        fs::write(self.path("past.db"), "").expect("an open directory");
        let curve = "ec_paramgen_curve:P-256";
        let ask = ["req", "-new", "-newkey", "ec", "-pkeyopt", curve, "-nodes", "-subj", "/CN=expired"];
        self.openssl(&[&ask[..], &["-config", &configuration, "-keyout", &files.key, "-out", &request]].concat());
        let days = ["-startdate", "20200101000000Z", "-enddate", "20200102000000Z"];
        let sign = ["ca", "-batch", "-notext", "-config", &configuration, "-extensions", "member", "-cert", &ca];
        let sign = [&sign[..], &days, &["-keyfile", &ca_key, "-in", &request, "-out", &files.certificate]].concat();
        self.openssl(&sign);
        files
    }

    /// A server whose certificate is for `db.example`.
    pub fn elsewhere(&self) -> CertificateFiles {
        self.identity("elsewhere")
    }

    fn identity(&self, name: &str) -> CertificateFiles {
        CertificateFiles { certificate: self.path(&format!("{name}.crt")), key: self.path(&format!("{name}.key")) }
    }

    fn make(&self, name: &str, authority: Option<&str>) {
        self.make_with(name, authority, "P-256");
    }

    fn make_with(&self, name: &str, authority: Option<&str>, curve: &str) {
        let CertificateFiles { certificate, key } = self.identity(name);
        let extensions = match authority {
            None => "authority",
            Some(_) if name == "elsewhere" => "elsewhere",
            Some(_) => "member",
        };
        let (curve, subject) = (format!("ec_paramgen_curve:{curve}"), format!("/CN={name}"));
        let configuration = self.path("openssl.cnf");
        let mut words = vec!["req", "-x509", "-newkey", "ec", "-pkeyopt", &curve, "-nodes", "-days", "2"];
        words.extend(["-config", &configuration, "-subj", &subject, "-extensions", extensions]);
        words.extend(["-keyout", &key, "-out", &certificate]);
        let signed_by = authority.map(|authority| self.identity(authority));
        if let Some(CertificateFiles { certificate, key }) = &signed_by {
            words.extend(["-CA", certificate, "-CAkey", key]);
        }
        self.openssl(&words);
    }

    #[track_caller]
    fn openssl(&self, words: &[&str]) {
        let output = Command::new("openssl").args(words).env("DIRECTORY", self.directory.path()).output();
        let output = output.expect("openssl is there");
        assert!(output.status.success(), "openssl {words:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn path(&self, file: &str) -> String {
        self.directory.path().join(file).display().to_string()
    }
}
