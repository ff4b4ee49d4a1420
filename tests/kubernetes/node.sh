#!/usr/bin/env bash
# Starts the node, as the first process of its namespaces, and runs COMMAND with its KUBECONFIG. All of
# it ends with this process. tests/kubernetes/run.sh calls it.
#
#   tests/kubernetes/node.sh FOLDER CGROUP COMMAND…    FOLDER/images.tar: what the node runs
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly here folder=$1 cgroup=$2
shift 2
# The address of the node, and of the API server, DNS and the kubelet on it.
readonly address=10.244.77.1 pods=10.244.77.0/24 services=10.245.0.0/24 api=10.245.0.1
readonly name=drawbridge port=6443
export PATH=$DRAWBRIDGE_TOOLS/kubernetes/bin:$DRAWBRIDGE_TOOLS/deploy/bin:$PATH
export KUBECONFIG=$folder/admin.conf

main() {
  local began=$SECONDS
  cd "$folder"
  network
  certificates
  configuration
  start etcd etcd --data-dir /run/etcd
  start containerd containerd --config "$folder/containerd.toml"
  api_server
  controllers
  eventually 60 "the node is not ready" kubectl wait --for=condition=Ready "node/$name" --timeout 1s
  eventually 30 "no name is resolved" getent hosts kubernetes.default.svc.cluster.local
  eventually 30 "no service account" kubectl --namespace default get serviceaccount default
  eventually 10 "containerd does not import" \
    ctr --address /run/containerd.sock --namespace k8s.io images import "$folder/images.tar"
  echo "a node of $(kubelet --version) was ready after $((SECONDS - began)) s"
  cd "$OLDPWD"
  "$@"
}

fail() {
  echo "kubernetes: $1" >&2
  tail -n 5 "$folder"/*.log >&2
  exit 1
}

# Waits up to $1 seconds until the command from $3 on succeeds.
eventually() {
  local since=$SECONDS
  until "${@:3}" >"$folder/eventually.log" 2>&1; do
    ((SECONDS - since < $1)) || fail "$2 after $1 s"
    sleep 0.3
  done
}

# Runs a part of the node in the background.
start() {
  "${@:2}" >"$folder/$1.log" 2>&1 &
}

# A bridge connects the node and its pods; names are resolved by the cluster's DNS alone.
network() {
  mount --make-rshared /
  mount -t tmpfs tmpfs /run
  ip link set lo up
  ip link add "$name" type bridge
  ip address add "$address/24" dev "$name"
  ip link set "$name" up
  ip route add "$services" dev "$name"
  echo 1 >/proc/sys/net/ipv4/ip_forward
  echo "nameserver $address" >resolv.conf
  mount --bind resolv.conf /etc/resolv.conf
}

certificates() {
  local curve=(-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1)
  local signed=(req -x509 -CA ca.crt -CAkey ca.key "${curve[@]}" -addext basicConstraints=critical,CA:false)
  local names=DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local,IP:$api,IP:$address
  openssl req -x509 "${curve[@]}" -subj /CN=kubernetes -addext basicConstraints=critical,CA:true \
    -keyout ca.key -out ca.crt
  openssl "${signed[@]}" -subj /CN=api -addext "subjectAltName=$names" -keyout api.key -out api.crt
  openssl "${signed[@]}" -subj /O=system:masters/CN=admin -addext extendedKeyUsage=clientAuth \
    -keyout admin.key -out admin.crt
  openssl genrsa -out accounts.key 2048
} 2>/dev/null

configuration() {
  cat >admin.conf <<YAML
apiVersion: v1
kind: Config
clusters: [{ name: it, cluster: { server: "https://$address:$port", certificate-authority: $folder/ca.crt } }]
users: [{ name: admin, user: { client-certificate: $folder/admin.crt, client-key: $folder/admin.key } }]
contexts: [{ name: it, context: { cluster: it, user: admin } }]
current-context: it
YAML
  cat >containerd.toml <<TOML
version = 2
root = "$folder/containerd"
state = "/run/containerd"
oom_score = 0
[grpc]
address = "/run/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "localhost/drawbridge-test-pause:1"
disable_apparmor = true
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "$folder/cni"
TOML
  mkdir cni
  cat >cni/bridge.conflist <<JSON
{"cniVersion": "0.4.0", "name": "$name", "plugins": [{
  "type": "bridge", "bridge": "$name", "isGateway": true, "hairpinMode": true,
  "ipam": {"type": "host-local", "dataDir": "/run/cni", "routes": [{"dst": "0.0.0.0/0"}],
    "ranges": [[{"subnet": "$pods", "rangeStart": "10.244.77.10"}]]}}]}
JSON
  # Control groups of version 1 suffice: limits are those of containers.
  cat >kubelet.yaml <<YAML
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: $address
authentication:
  anonymous: { enabled: false }
  webhook: { enabled: false }
  x509: { clientCAFile: $folder/ca.crt }
authorization: { mode: AlwaysAllow }
cgroupDriver: cgroupfs
cgroupRoot: /$cgroup
clusterDNS: [$address]
clusterDomain: cluster.local
containerRuntimeEndpoint: unix:///run/containerd.sock
enforceNodeAllocatable: []
evictionHard: { memory.available: "0%", nodefs.available: "0%", imagefs.available: "0%" }
failCgroupV1: false
failSwapOn: false
makeIPTablesUtilChains: false
oomScoreAdj: 0
podLogsDir: $folder/pods
readOnlyPort: 0
resolvConf: ""
YAML
  # There is no name but the cluster's, and a resolver must not wait for another.
  cat >Corefile <<CONFIG
cluster.local:53 {
  bind $address
  kubernetes cluster.local {
    kubeconfig $folder/admin.conf
  }
}
.:53 {
  bind $address
  template ANY ANY {
    rcode NXDOMAIN
  }
}
CONFIG
}

api_server() {
  start api kube-apiserver --etcd-servers http://127.0.0.1:2379 \
    --bind-address "$address" --advertise-address "$address" --secure-port "$port" \
    --tls-cert-file api.crt --tls-private-key-file api.key --client-ca-file ca.crt \
    --kubelet-client-certificate admin.crt --kubelet-client-key admin.key \
    --kubelet-preferred-address-types InternalIP \
    --service-account-issuer https://kubernetes.default.svc.cluster.local \
    --service-account-signing-key-file accounts.key --service-account-key-file accounts.key \
    --service-cluster-ip-range "$services" --authorization-mode RBAC
  eventually 60 "the API server is not ready" kubectl get --raw /readyz
}

controllers() {
  start controllers kube-controller-manager --kubeconfig admin.conf --leader-elect=false \
    --root-ca-file ca.crt --service-account-private-key-file accounts.key
  start scheduler kube-scheduler --kubeconfig admin.conf --leader-elect=false
  start proxy kube-proxy --kubeconfig admin.conf --hostname-override "$name" --proxy-mode iptables \
    --cluster-cidr "$pods" --conntrack-max-per-core 0
  start dns coredns -conf Corefile
  start kubelet kubelet --kubeconfig admin.conf --config kubelet.yaml --hostname-override "$name" \
    --node-ip "$address" --root-dir "$folder/kubelet" --cert-dir "$folder/kubelet/certificates"
}

main "$@"
