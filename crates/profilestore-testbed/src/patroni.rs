//! PostgreSQL servers under Patroni, which decides by way of etcd who is the primary.

use std::{fs, io, path::PathBuf, process::Stdio};

use crate::{
    postgres::{Folder, USER, as_owner, own, programs, psql, until},
    process::{Process, children, free_port, kill},
};

/// A cluster of PostgreSQL servers, each with its Patroni, and an etcd of one node. Commits wait
/// for a standby. Needs Debian's packages `patroni` and `etcd-server`. Ends when it is dropped.
#[derive(Debug)]
pub struct PatroniCluster {
    nodes: Vec<Node>,
    etcd: Process,
    bin: PathBuf,
    _etcd_folder: Folder,
}

#[derive(Debug)]
struct Node {
    port: u16,
    patroni: Process,
    folder: Folder,
    killed: bool,
}

impl Node {
    /// Ends Patroni and its server at once, as a machine that loses its power.
    fn kill(&mut self) {
        if std::mem::replace(&mut self.killed, true) {
            // Its ids may be another process's by now.
            return;
        }
        let postmaster = fs::read_to_string(self.folder.folder.path().join("data/postmaster.pid"))
            .unwrap_or_default();
        // First, so that it starts nothing again.
        self.patroni.kill();
        if let Some(postmaster) = postmaster.lines().next().and_then(|pid| pid.trim().parse().ok())
        {
            let children = children(postmaster);
            kill(postmaster);
            children.into_iter().for_each(kill);
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

impl PatroniCluster {
    /// Starts one of so many servers, and waits until the primary has a synchronous standby.
    pub fn start(servers: usize) -> io::Result<Self> {
        let bin = programs()?;
        let etcd_folder = Folder::new()?;
        own(etcd_folder.folder.path())?;
        let (client, peer) = (free_port()?, free_port()?);
        let (client_url, peer_url) =
            (format!("http://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
        let mut command = as_owner("etcd".as_ref(), etcd_folder.folder.path())?;
        command.args([
            "--name",
            "etcd",
            "--data-dir",
            "data",
            "--initial-cluster",
            &format!("etcd={peer_url}"),
        ]);
        command.args(["--listen-client-urls", &client_url, "--advertise-client-urls", &client_url]);
        command.args(["--listen-peer-urls", &peer_url, "--initial-advertise-peer-urls", &peer_url]);
        let etcd = Process::start(command.stdout(Stdio::null()).stderr(etcd_folder.log_file()?))
            .map_err(not_installed)?;
        let mut cluster = Self { nodes: Vec::new(), etcd, bin, _etcd_folder: etcd_folder };
        for number in 0..servers {
            let node = cluster.node(number, client)?;
            cluster.nodes.push(node);
        }
        until("the primary has a synchronous standby", || {
            assert!(cluster.etcd.runs(), "etcd ended");
            let asked = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'";
            Ok(cluster
                .primary()
                .is_some_and(|primary| cluster.sql(primary, asked).is_ok_and(|count| count == "1")))
        })
        .map_err(|error| {
            let logs: Vec<String> = cluster.nodes.iter().map(|node| node.folder.log()).collect();
            io::Error::new(error.kind(), format!("{error}: {logs:#?}"))
        })?;
        Ok(cluster)
    }

    fn node(&self, number: usize, etcd: u16) -> io::Result<Node> {
        let (folder, port, api) = (Folder::new()?, free_port()?, free_port()?);
        let path = folder.folder.path();
        own(path)?;
        let config = format!(
            "scope: test\n\
             name: node{number}\n\
             restapi: {{listen: '127.0.0.1:{api}', connect_address: '127.0.0.1:{api}'}}\n\
             etcd3: {{host: '127.0.0.1:{etcd}'}}\n\
             bootstrap:\n\
             \x20 dcs: {{ttl: 20, loop_wait: 2, retry_timeout: 5, synchronous_mode: true}}\n\
             \x20 initdb: [encoding: UTF8, locale: C.UTF-8]\n\
             \x20 pg_hba: ['host all all 127.0.0.1/32 trust', 'host replication all 127.0.0.1/32 trust']\n\
             postgresql:\n\
             \x20 listen: '127.0.0.1:{port}'\n\
             \x20 connect_address: '127.0.0.1:{port}'\n\
             \x20 data_dir: '{data}'\n\
             \x20 bin_dir: '{bin}'\n\
             \x20 pgpass: '{pgpass}'\n\
             \x20 authentication: {{superuser: {{username: {USER}}}, replication: {{username: replicator}}}}\n\
             \x20 parameters: {{unix_socket_directories: ''}}\n",
            data = path.join("data").display(),
            bin = self.bin.display(),
            pgpass = path.join("pgpass").display(),
        );
        fs::write(path.join("patroni.yml"), config)?;
        let mut command = as_owner("patroni".as_ref(), path)?;
        let log = folder.log_file()?;
        let patroni = command.arg("patroni.yml").stdout(log.try_clone()?).stderr(log);
        let patroni = Process::start(patroni).map_err(not_installed)?;
        Ok(Node { port, patroni, folder, killed: false })
    }

    /// `postgres://` with all its servers, for clients that follow the primary.
    pub fn url(&self) -> String {
        let hosts: Vec<String> =
            self.nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
        format!("postgres://{USER}@{}/postgres?target_session_attrs=read-write", hosts.join(","))
    }

    /// Which server takes writes now.
    pub fn primary(&self) -> Option<usize> {
        (0..self.nodes.len()).find(|node| {
            self.sql(*node, "SELECT pg_is_in_recovery()").is_ok_and(|answer| answer == "f")
        })
    }

    /// Kills a server and its Patroni, at once and with all their processes, and waits until
    /// another one takes writes.
    pub fn fail_over_from(&mut self, node: usize) -> io::Result<()> {
        self.nodes[node].kill();
        until("another server takes writes", || Ok(self.primary().is_some()))
    }

    fn sql(&self, node: usize, statement: &str) -> io::Result<String> {
        psql(
            &self.bin,
            &format!("postgres://{USER}@127.0.0.1:{}/postgres", self.nodes[node].port),
            statement,
        )
    }
}

fn not_installed(error: io::Error) -> io::Error {
    io::Error::new(
        error.kind(),
        format!("it cannot be started (on Debian: apt-get install patroni etcd-server): {error}"),
    )
}
