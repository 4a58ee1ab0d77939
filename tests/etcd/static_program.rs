//! The static program and TLS.

use std::net::Ipv4Addr;
use std::sync::Arc;

use crate::etcd::server::{EtcdOptions, EtcdServer};
use crate::harness::certificates::Certificates;
use crate::harness::empty_root::{self, EmptyRoot};

#[test]
fn it_verifies_certificates_in_an_empty_root() {
    if !empty_root::is_possible() {
        return;
    }
    let certificates = Arc::new(Certificates::new());
    let etcd = EtcdServer::with(&EtcdOptions::new().tls(&certificates));
    let root = EmptyRoot::new(Ipv4Addr::LOCALHOST.into());
    let client = certificates.client();
    let (certificate, key) = (root.put(&client.certificate), root.put(&client.key));
    let url = etcd.url();
    let words = ["--store", &url, "--tls-cert", &certificate, "--tls-key", &key, "--tls-ca"];
    let ca = root.put(&certificates.ca());
    root.leads(&[&words[..], &[&ca]].concat());
    let other_ca = root.put(&certificates.other_ca());
    let other = [&["run", "-n", "-b", "static"], &words[..], &[&other_ca, "--", "/elect"]].concat();
    let refused = root.elect(&other);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(77) && said.contains("certificate"), "{refused:?}");
}
