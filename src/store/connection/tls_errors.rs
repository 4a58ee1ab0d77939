//! Failures of TLS in words: what is wrong with which certificate, and what to do about it.
//!
//! Libraries pass on the words of rustls and nothing else, so that the words are what is recognized here.

use std::fmt::Write as _;

/// What this side brings to a handshake, as far as advice depends on it.
#[derive(Debug, Clone, Copy)]
pub struct TlsSide<'a> {
    /// Whether a certificate of elect's own is shown.
    pub has_identity: bool,
    /// Whether `--tls-ca` names authorities.
    pub has_ca: bool,
    /// How the URL is written for a server without TLS.
    pub plain_form: &'a str,
}

/// The fault behind a text of rustls, with a way out; `None`: the text is not about TLS, or may pass. A fault is the same at
/// the next attempt.
pub fn tls_fault(text: &str, side: TlsSide<'_>) -> Option<String> {
    if let Some((_, fault)) = text.split_once("invalid peer certificate: ") {
        return Some(certificate_fault(fault, side));
    }
    if let Some((_, alert)) = text.split_once("received fatal alert: ") {
        return Some(alert_fault(alert.trim_end_matches(|c: char| !c.is_ascii_alphanumeric()), side));
    }
    if text.contains("InvalidContentType") || text.contains("WrongVersionNumber") {
        return Some(format!(
            "answers without TLS: write {} for a server without TLS, or name the port that its TLS is at",
            side.plain_form
        ));
    }
    if text.contains("peer is incompatible") {
        return Some(
            "and elect have no version or cipher of TLS in common: the server needs TLS 1.2 or 1.3 (with ECDHE)"
                .to_owned(),
        );
    }
    None
}

/// The fault of the server's certificate.
fn certificate_fault(fault: &str, side: TlsSide<'_>) -> String {
    const SHOWS: &str = "shows a certificate that is not accepted here";
    if fault.contains("UnknownIssuer") {
        let whose = if side.has_ca { "that --tls-ca does not name" } else { "that this system does not know" };
        let way_out = if side.has_ca { "name the right one with --tls-ca" } else { "name it with --tls-ca" };
        return format!("{SHOWS}: it is signed by a certificate authority {whose}: {way_out}");
    }
    if fault.contains("CaUsedAsEndEntity") {
        // A self-signed certificate that is named is accepted as it is.
        if side.has_ca {
            return format!(
                "{SHOWS}: it is self-signed (CA:TRUE), and one that --tls-ca does not name: name this certificate with --tls-ca, or \
                 give the server one that the authority has signed"
            );
        }
        return format!(
            "{SHOWS}: it is an authority's own certificate (CA:TRUE), used as a server's: give the server a certificate that the \
             authority has signed, or a self-signed one with CA:FALSE"
        );
    }
    if let Some(names) = fault.split_once("certificate not valid for name ").map(|(_, names)| names) {
        let names = names.replace("; certificate is only valid for ", ", but for ");
        let names =
            names.replace("; certificate is not valid for any names (according to its subjectAltName extension)", "");
        return format!(
            "{SHOWS}: it is not issued for {}: use a name of the certificate in --store, or issue one for this name (subjectAltName)",
            names.trim()
        );
    }
    if fault.contains("NotValidForName") {
        return format!("{SHOWS}: it is issued for another name: use a name of the certificate in --store");
    }
    if fault.contains("expired") || fault.contains("Expired") {
        return format!("{SHOWS}: it has expired: renew it, or set this host's clock if that is wrong");
    }
    if fault.contains("not valid yet") || fault.contains("NotValidYet") {
        return format!("{SHOWS}: it is not valid yet: set this host's clock, or wait");
    }
    if fault.contains("key usage") || fault.contains("InvalidPurpose") {
        return format!("{SHOWS}: it is not issued for servers: its extended key usage needs serverAuth");
    }
    if fault.contains("UnsupportedSignatureAlgorithm") || fault.contains("UnsupportedCertVersion") {
        return format!("{SHOWS}: {UNSUPPORTED_KEY}");
    }
    let mut text = format!("{SHOWS}: ");
    // Writing to a string cannot fail.
    let _ = write!(text, "{}: replace it, or name its authority with --tls-ca", words(fault));
    text
}

const UNSUPPORTED_KEY: &str = "its kind of key or signature is not supported (P-521 and X.509 version 1 are not): issue one with \
                               P-256, P-384, Ed25519 or RSA";

/// The fault that the server has found with what elect has sent.
fn alert_fault(alert: &str, side: TlsSide<'_>) -> String {
    let refused = |why: &str| {
        format!("does not accept the certificate of --tls-cert{why}: give one that its authority has signed")
    };
    match alert {
        "CertificateRequired"
        | "BadCertificate"
        | "CertificateUnknown"
        | "UnknownCA"
        | "UnknownCa"
        | "AccessDenied"
            if !side.has_identity =>
        {
            "asks for a certificate of elect's own: give --tls-cert and --tls-key".to_owned()
        }
        "UnknownCA" | "UnknownCa" => refused(" (unknown authority)"),
        "CertificateExpired" => refused(" (it has expired)"),
        "CertificateRequired"
        | "BadCertificate"
        | "CertificateUnknown"
        | "CertificateRevoked"
        | "AccessDenied"
        | "UnsupportedCertificate" => refused(""),
        "HandshakeFailure" if side.has_identity => {
            format!(
                "has ended the TLS handshake: it does not accept the certificate of --tls-cert, or {UNSUPPORTED_SERVER_KEY}"
            )
        }
        "HandshakeFailure" => format!(
            "has ended the TLS handshake: it asks for a certificate of elect's own (--tls-cert and --tls-key), or \
             {UNSUPPORTED_SERVER_KEY}"
        ),
        "ProtocolVersion" => "offers no version of TLS that is secure: elect needs TLS 1.2 or 1.3".to_owned(),
        "UnrecognisedName" | "UnrecognizedName" => {
            "has no certificate for the name in --store: use a name that it serves".to_owned()
        }
        other => format!("has ended the TLS handshake ({}): see the log of the server", words(other)),
    }
}

const UNSUPPORTED_SERVER_KEY: &str = "its own certificate has a key that is not supported, such as P-521 (some servers make \
                                      those for themselves): use P-256, P-384, Ed25519 or RSA";

/// The name of a variant as words: `BadSignature` becomes `bad signature`; without the marks of its notation.
fn words(variant: &str) -> String {
    let mut text = String::new();
    for c in variant.chars() {
        match c {
            'A'..='Z' if text.ends_with(|last: char| last.is_ascii_lowercase()) => {
                text.push(' ');
                text.push(c.to_ascii_lowercase());
            }
            'A'..='Z' => text.push(c.to_ascii_lowercase()),
            '(' | ')' | '{' | '}' | '"' => text.push(' '),
            c => text.push(c),
        }
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::{AlertDescription, CertificateError, Error, InvalidMessage};

    const BARE: TlsSide<'_> = TlsSide { has_identity: false, has_ca: false, plain_form: "plain://" };

    #[test]
    fn each_fault_of_a_certificate_is_told_with_a_way_out() {
        for (fault, said) in [
            (CertificateError::UnknownIssuer, "name it with --tls-ca"),
            (CertificateError::NotValidForName, "issued for another name"),
            (CertificateError::Expired, "has expired"),
            (CertificateError::NotValidYet, "not valid yet"),
            (CertificateError::InvalidPurpose, "serverAuth"),
            (CertificateError::BadSignature, "bad signature"),
        ] {
            let text = Error::InvalidCertificate(fault).to_string();
            let told = tls_fault(&text, BARE).unwrap_or_else(|| panic!("{text}"));
            assert!(told.contains(said), "{text}: {told}");
        }
        let ca = TlsSide { has_ca: true, ..BARE };
        let text = Error::InvalidCertificate(CertificateError::UnknownIssuer).to_string();
        assert!(tls_fault(&text, ca).is_some_and(|told| told.contains("--tls-ca does not name")), "{text}");
    }

    #[test]
    fn an_alert_is_told_by_what_this_side_has_shown() {
        let identity = TlsSide { has_identity: true, ..BARE };
        for (alert, without, with) in [
            (AlertDescription::CertificateRequired, "give --tls-cert and --tls-key", "of --tls-cert"),
            (AlertDescription::BadCertificate, "give --tls-cert and --tls-key", "of --tls-cert"),
            (AlertDescription::UnknownCA, "give --tls-cert and --tls-key", "unknown authority"),
            (AlertDescription::HandshakeFailure, "P-521", "P-521"),
            (AlertDescription::ProtocolVersion, "TLS 1.2", "TLS 1.2"),
            (AlertDescription::InternalError, "internal error", "internal error"),
        ] {
            let text = Error::AlertReceived(alert).to_string();
            assert!(tls_fault(&text, BARE).is_some_and(|told| told.contains(without)), "{text}");
            assert!(tls_fault(&text, identity).is_some_and(|told| told.contains(with)), "{text}");
        }
    }

    #[test]
    fn a_server_without_tls_is_told_apart_from_an_outage() {
        let text = Error::InvalidMessage(InvalidMessage::InvalidContentType).to_string();
        assert!(tls_fault(&text, BARE).is_some_and(|told| told.contains("plain://")), "{text}");
        for text in ["Connection refused (os error 111)", "tls handshake eof", ""] {
            assert_eq!(tls_fault(text, BARE), None, "{text}");
        }
    }
}
