package settings

import (
	"encoding/base64"
	"fmt"

	"tanka.dev/e2e/cluster/internal/layout"
)

// PauseImage, DNSImage and MetricsImage are the system's own images; they are in every node from the start.
const (
	PauseImage   = "localhost/tanka-system/pause:1"
	DNSImage     = "localhost/tanka-system/coredns:1"
	MetricsImage = "localhost/tanka-system/metrics-server:1"
)

func encode(content []byte) string { return base64.StdEncoding.EncodeToString(content) }

// Containerd is the container runtime's configuration. root is a folder on the node's disk.
func Containerd(root, cniPlugins string) string {
	return fmt.Sprintf(`version = 2
root = %q
state = "/run/containerd"
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.native", "io.containerd.internal.v1.opt",
  "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing",
]

[grpc]
  address = %q

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = %q
  # Without CAP_SYS_RESOURCE a score below our own cannot be set, and every sandbox would fail.
  restrict_oom_score_adj = true
  enable_unprivileged_ports = true
  disable_apparmor = true

  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = %q
    conf_dir = "/run/node/cni"

  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"

    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
`, root, layout.ContainerdSocket, PauseImage, cniPlugins)
}

// PodNetwork is the CNI configuration. Every pod hangs on a cable of its own and all traffic is routed, so that
// policies see it, even between two pods of one node. Leases lie on the node's /run: they end with its power.
func PodNetwork(node layout.Node) string {
	return fmt.Sprintf(`{
  "cniVersion": "0.4.0",
  "name": "pods",
  "plugins": [
    {
      "type": "ptp",
      "ipMasq": false,
      "mtu": 1500,
      "ipam": {
        "type": "host-local",
        "dataDir": "/run/cni/leases",
        "ranges": [[{"subnet": %q}]],
        "routes": [{"dst": "0.0.0.0/0"}]
      }
    },
    {"type": "portmap", "capabilities": {"portMappings": true}}
  ]
}
`, node.PodRange())
}

// Kubelet is the kubelet's configuration file.
func Kubelet(c layout.Cluster, node layout.Node) string {
	return fmt.Sprintf(`apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication:
  anonymous: {enabled: false}
  webhook: {enabled: true}
  x509: {clientCAFile: %[1]s/ca.crt}
authorization: {mode: Webhook}
tlsCertFile: %[1]s/%[2]s-server.crt
tlsPrivateKeyFile: %[1]s/%[2]s-server.key
containerRuntimeEndpoint: unix://%[3]s
clusterDomain: cluster.local
clusterDNS: [%[4]s]
resolvConf: %[5]s/resolv.conf
cgroupDriver: cgroupfs
cgroupRoot: %[6]s
failCgroupV1: false
failSwapOn: false
serializeImagePulls: false
# The disk belongs to the machine, not to the node: its fill level must not evict pods or delete images.
evictionHard: {memory.available: 100Mi, nodefs.available: 0%%, nodefs.inodesFree: 0%%, imagefs.available: 0%%, imagefs.inodesFree: 0%%}
imageGCHighThresholdPercent: 100
# A dead node is noticed after seconds.
nodeStatusUpdateFrequency: 3s
nodeLeaseDurationSeconds: 8
kubeAPIQPS: 100
kubeAPIBurst: 200
volumePluginDir: /run/kubelet-plugins
enableControllerAttachDetach: true
enableProfilingHandler: false
`, c.Path("pki"), node.Name(), layout.ContainerdSocket, layout.DNSServiceIP, c.NodeDir(node), c.PodsCgroup(node))
}

// KubeletArguments is what the kubelet takes only as flags.
func KubeletArguments(c layout.Cluster, node layout.Node) []string {
	return []string{
		"--config=" + c.Path("nodes", node.Name(), "kubelet.yaml"),
		"--kubeconfig=" + c.Path("kubeconfigs", node.Name()),
		"--root-dir=" + layout.NodeMount + "/kubelet",
		"--cert-dir=" + layout.NodeMount + "/kubelet/pki",
		"--hostname-override=" + node.Name(),
		"--node-ip=" + node.IP(),
		fmt.Sprintf("--node-labels=topology.kubernetes.io/zone=zone-%d,topology.kubernetes.io/region=local", int(node)),
	}
}

// KubeProxy is kube-proxy's configuration. It leaves alone the connection-tracking settings, which are the whole
// machine's.
func KubeProxy(c layout.Cluster, node layout.Node) string {
	return fmt.Sprintf(`apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
clientConnection: {kubeconfig: %s}
hostnameOverride: %s
clusterCIDR: %s
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
nftables: {minSyncPeriod: 100ms}
`, c.Path("kubeconfigs", "kube-proxy"), node.Name(), layout.PodRange)
}

// NodeAgent is the arguments of our own agent.
func NodeAgent(c layout.Cluster, node layout.Node) []string {
	return []string{
		"--kubeconfig=" + c.Path("kubeconfigs", "node-agent"),
		"--node=" + node.Name(),
		"--volumes=" + layout.NodeMount + "/volumes",
	}
}
