//! TLS to the cloud, with the roots of the platform.

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, pki_types::PrivateKeyDer},
};

use crate::harness::{Process, Stream, quiet_cloud, within};

/// A port that takes TLS off and passes the bytes on to `cloud`. It tells of every
/// handshake that came to its end.
async fn tls_port(cloud: SocketAddr, name: &str) -> (u16, PathBuf, mpsc::Receiver<bool>) {
    let root_key = KeyPair::generate().unwrap();
    let mut root = CertificateParams::new(Vec::<String>::new()).unwrap();
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root_cert = root.self_signed(&root_key).unwrap();
    let key = KeyPair::generate().unwrap();
    let issuer = Issuer::new(root, root_key);
    let cert = CertificateParams::new([name.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();

    let roots =
        PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("roots-{}.pem", fastrand::u64(..)));
    std::fs::write(&roots, root_cert.pem()).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key);
    let acceptor = TlsAcceptor::from(Arc::new(config.unwrap()));

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (handshakes, seen) = mpsc::channel(16);
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let (acceptor, handshakes) = (acceptor.clone(), handshakes.clone());
            tokio::spawn(async move {
                let accepted = acceptor.accept(socket).await;
                let _ = handshakes.send(accepted.is_ok()).await;
                if let Ok(mut near) = accepted {
                    let mut far = TcpStream::connect(cloud).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                }
            });
        }
    });
    (port, roots, seen)
}

#[tokio::test]
async fn the_platforms_roots_vouch_for_the_cloud() {
    let cloud = quiet_cloud().await;
    let (port, roots, _handshakes) = tls_port(cloud.addr(), "localhost").await;
    let url = format!("--upstream-url=https://localhost:{port}");
    let arguments = ["serve", "--listen=127.0.0.1:0", "--upstream-token=not-a-real-token", &url];
    let mut command = Process::command(&arguments);
    // Where OpenSSL and rustls look for the system's roots on Linux.
    command.env("SSL_CERT_FILE", &roots);
    let mut broker = Process::start(command);
    let addr = broker.traced("listening").await["address"].as_str().unwrap().parse().unwrap();
    let (mut stream, _) = Stream::live(addr, "/events?control=on").await;
    within("live over TLS", cloud.streams(1)).await;
    cloud.publish("over/tls", Some("1"));
    let event = loop {
        let event = stream.next().await;
        if event.kind == "message" {
            break event;
        }
    };
    assert_eq!(event.json()["name"], "over/tls");
    std::fs::remove_file(roots).unwrap();
}

#[tokio::test]
async fn a_cloud_nobody_vouches_for_gets_no_token() {
    let cloud = quiet_cloud().await;
    for (name, trusted) in [("localhost", false), ("someone-else.example", true)] {
        let (port, roots, mut handshakes) = tls_port(cloud.addr(), name).await;
        let url = format!("--upstream-url=https://localhost:{port}");
        let arguments =
            ["serve", "--listen=127.0.0.1:0", "--upstream-token=not-a-real-token", &url];
        let mut command = Process::command(&arguments);
        if trusted {
            command.env("SSL_CERT_FILE", &roots);
        }
        let mut broker = Process::start(command);
        assert_eq!(within("a handshake", handshakes.recv()).await, Some(false), "{name}");
        let detail = loop {
            let change = broker.traced("upstream").await;
            if change["state"] == "backing-off" {
                break change["detail"].as_str().unwrap().to_owned();
            }
        };
        assert!(detail.contains("TLS") && detail.contains("certificate"), "{detail}");
        assert_eq!(cloud.state().opens_total, 0, "nothing was asked, so no token was shown");
        std::fs::remove_file(roots).unwrap();
    }
}
