//! Loopback, over which the ranks of a machine meet, and this machine's name.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, ToSocketAddrs};
use std::time::Duration;

use super::check::Check;

/// Loopback answers in microseconds.
const TIMEOUT: Duration = Duration::from_secs(5);

pub fn checks() -> Vec<Check> {
    vec![loopback(), host_name()]
}

fn loopback() -> Check {
    let name = "loopback";
    let meet = || -> io::Result<()> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let mut to = TcpStream::connect_timeout(&address, TIMEOUT)?;
        let (mut from, _) = listener.accept()?;
        from.set_read_timeout(Some(TIMEOUT))?;
        to.write_all(b"spinectl")?;
        let mut heard = [0; 8];
        from.read_exact(&mut heard)?;
        match &heard == b"spinectl" {
            true => Ok(()),
            false => Err(io::Error::other(
                "what was sent came back as something else",
            )),
        }
    };
    match meet() {
        Ok(()) => Check::ok(name, "127.0.0.1 listens and answers"),
        Err(error) => Check::fail(
            name,
            format!("127.0.0.1: {error}"),
            "bring it up (`ip link set lo up`) and let no firewall stand in its way: ranks meet there",
        ),
    }
}

fn host_name() -> Check {
    let name = "host name";
    let host = match std::fs::read_to_string("/proc/sys/kernel/hostname") {
        Ok(host) => host.trim().to_owned(),
        Err(error) => {
            return Check::warn(name, format!("is not to be known: {error}"), "mount /proc");
        }
    };
    match (host.as_str(), 1_u16)
        .to_socket_addrs()
        .map(|mut found| found.next())
    {
        Ok(Some(_)) => Check::ok(name, "has an address"),
        Ok(None) | Err(_) => Check::warn(
            name,
            "has no address",
            "add it to /etc/hosts: runs on this machine do not need it, those over several do",
        ),
    }
}
