use super::{Node, PASSWORD, free_port, until};

const MASTERS: usize = 3;
const SLOTS: usize = 16_384;

/// A Redis Cluster of three masters, each with a replica.
#[derive(Debug)]
pub struct RedisCluster {
    nodes: Vec<Node>,
    /// Its URL. The first of its nodes is dead, so a client must discover the cluster from the
    /// others.
    pub url: String,
}

impl RedisCluster {
    /// Starts a cluster and waits until all of its slots are served.
    pub async fn start() -> Self {
        let (mut nodes, mut buses) = (Vec::new(), Vec::new());
        for _ in 0..2 * MASTERS {
            let bus = free_port();
            let config = format!(
                "cluster-enabled yes\ncluster-port {bus}\ncluster-node-timeout 1000\n\
                 cluster-replica-validity-factor 0"
            );
            nodes.push(Node::start(&config).await);
            buses.push(bus);
        }
        for (number, node) in nodes.iter().enumerate() {
            let _: () = node.expect(&format!("CLUSTER SET-CONFIG-EPOCH {}", number + 1)).await;
            if number < MASTERS {
                let (from, to) = (SLOTS * number / MASTERS, SLOTS * (number + 1) / MASTERS - 1);
                let _: () = node.expect(&format!("CLUSTER ADDSLOTSRANGE {from} {to}")).await;
            }
        }
        for (node, bus) in nodes.iter().zip(&buses).skip(1) {
            let _: () =
                nodes[0].expect(&format!("CLUSTER MEET 127.0.0.1 {} {bus}", node.port())).await;
        }
        for (master, replica) in nodes[..MASTERS].iter().zip(&nodes[MASTERS..]) {
            let master: String = master.expect("CLUSTER MYID").await;
            let replicate = format!("CLUSTER REPLICATE {master}");
            until("a replica", async || replica.command::<()>(&replicate).await.is_ok()).await;
        }
        for node in &nodes {
            until("the cluster", async || {
                let info: String = node.expect("CLUSTER INFO").await;
                let replication: String = node.expect("INFO replication").await;
                info.contains("cluster_state:ok")
                    && info.contains("cluster_known_nodes:6")
                    && (replication.contains("master_link_status:up")
                        || replication.contains("connected_slaves:1"))
            })
            .await;
        }
        let known = [free_port(), nodes[0].port(), nodes[1].port(), nodes[2].port()];
        let known = known.map(|port| format!("127.0.0.1:{port}")).join(",");
        Self { nodes, url: format!("redis-cluster://:{PASSWORD}@{known}") }
    }

    /// Kills the master of this key's slot, without waiting for a failover.
    pub async fn kill_master_of(&mut self, key: &str) {
        let slot: usize = self.nodes[0].expect(&format!("CLUSTER KEYSLOT {key}")).await;
        self.nodes[slot * MASTERS / SLOTS].redis.kill();
    }
}
