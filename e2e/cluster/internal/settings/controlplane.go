// Package settings renders what the components are told: their arguments and configuration files. Every function
// is pure; the values were found by running them, and a comment says why where it is not plain.
package settings

import (
	"fmt"

	"tanka.dev/e2e/cluster/internal/layout"
)

// Etcd keeps its data without waiting for the disk: a cluster for tests may be lost with the machine.
func Etcd(c layout.Cluster) []string {
	return []string{
		"--name=etcd",
		"--data-dir=" + c.Path("etcd"),
		"--listen-client-urls=http://127.0.0.1:2379",
		"--advertise-client-urls=http://127.0.0.1:2379",
		"--listen-peer-urls=http://127.0.0.1:2380",
		"--initial-advertise-peer-urls=http://127.0.0.1:2380",
		"--initial-cluster=etcd=http://127.0.0.1:2380",
		"--unsafe-no-fsync",
		"--heartbeat-interval=100",
		"--election-timeout=1000",
		"--log-level=warn",
	}
}

// APIServer is the API server's arguments. Without a controller manager there are no service accounts either, and
// without those no pod could be created, so the admission plug-in that demands them is left out.
func APIServer(c layout.Cluster, withControllerManager bool) []string {
	pki := func(file string) string { return c.Path("pki", file) }
	arguments := []string{
		"--etcd-servers=http://127.0.0.1:2379",
		"--advertise-address=" + layout.ControlPlaneIP,
		"--bind-address=0.0.0.0",
		fmt.Sprintf("--secure-port=%d", layout.APIServerPort),
		"--service-cluster-ip-range=" + layout.ServiceRange,
		"--endpoint-reconciler-type=lease",
		"--allow-privileged=true",
		"--authorization-mode=Node,RBAC",
		"--enable-admission-plugins=NodeRestriction",
		"--anonymous-auth=true",
		"--client-ca-file=" + pki("ca.crt"),
		"--tls-cert-file=" + pki("apiserver.crt"),
		"--tls-private-key-file=" + pki("apiserver.key"),
		"--kubelet-certificate-authority=" + pki("ca.crt"),
		"--kubelet-client-certificate=" + pki("apiserver-kubelet-client.crt"),
		"--kubelet-client-key=" + pki("apiserver-kubelet-client.key"),
		"--kubelet-preferred-address-types=InternalIP",
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-key-file=" + pki("sa.pub"),
		"--service-account-signing-key-file=" + pki("sa.key"),
		"--requestheader-client-ca-file=" + pki("front-proxy-ca.crt"),
		"--requestheader-allowed-names=front-proxy-client",
		"--requestheader-extra-headers-prefix=X-Remote-Extra-",
		"--requestheader-group-headers=X-Remote-Group",
		"--requestheader-username-headers=X-Remote-User",
		"--proxy-client-cert-file=" + pki("front-proxy-client.crt"),
		"--proxy-client-key-file=" + pki("front-proxy-client.key"),
		// No kube-proxy runs beside the API server: it reaches aggregated servers and webhooks at their pods.
		"--enable-aggregator-routing=true",
		// A pod on a lost node is replaced after seconds, so that tests need not wait five minutes.
		"--default-not-ready-toleration-seconds=10",
		"--default-unreachable-toleration-seconds=10",
		"--profiling=false",
		"--shutdown-delay-duration=0s",
		"--audit-policy-file=" + c.Path("audit-policy.yaml"),
		"--audit-log-path=" + c.Path("audit.log"),
		"--audit-log-maxsize=50",
		"--audit-log-maxbackup=1",
	}
	if !withControllerManager {
		arguments = append(arguments, "--disable-admission-plugins=ServiceAccount")
	}
	return arguments
}

// AuditPolicy makes the API server write down who among the service accounts asked for what, without bodies: by that the
// tests compare the rights that were given with those that were used. Kubernetes' own controllers are left out.
func AuditPolicy() string {
	return `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  userGroups: ["system:serviceaccounts:kube-system"]
- level: Metadata
  userGroups: ["system:serviceaccounts"]
- level: None
`
}

// ControllerManager is the controller manager's arguments. It alone is its own leader, so it asks for no lease.
func ControllerManager(c layout.Cluster) []string {
	pki := func(file string) string { return c.Path("pki", file) }
	return []string{
		"--kubeconfig=" + c.Path("kubeconfigs", "controller-manager"),
		"--authentication-kubeconfig=" + c.Path("kubeconfigs", "controller-manager"),
		"--authorization-kubeconfig=" + c.Path("kubeconfigs", "controller-manager"),
		"--bind-address=127.0.0.1",
		"--leader-elect=false",
		"--use-service-account-credentials=true",
		"--root-ca-file=" + pki("ca.crt"),
		"--client-ca-file=" + pki("ca.crt"),
		"--requestheader-client-ca-file=" + pki("front-proxy-ca.crt"),
		"--service-account-private-key-file=" + pki("sa.key"),
		"--cluster-signing-cert-file=" + pki("ca.crt"),
		"--cluster-signing-key-file=" + pki("ca.key"),
		"--cluster-name=" + c.Name,
		"--service-cluster-ip-range=" + layout.ServiceRange,
		"--allocate-node-cidrs=false",
		// At the default rate the first service accounts come five seconds late.
		"--kube-api-qps=200",
		"--kube-api-burst=400",
		"--horizontal-pod-autoscaler-sync-period=5s",
		// A dead node is noticed after 12 seconds instead of 50.
		"--node-monitor-grace-period=12s",
		"--node-monitor-period=2s",
		"--profiling=false",
	}
}

// Scheduler is the scheduler's arguments.
func Scheduler(c layout.Cluster) []string {
	return []string{
		"--kubeconfig=" + c.Path("kubeconfigs", "scheduler"),
		"--authentication-kubeconfig=" + c.Path("kubeconfigs", "scheduler"),
		"--authorization-kubeconfig=" + c.Path("kubeconfigs", "scheduler"),
		"--bind-address=127.0.0.1",
		"--leader-elect=false",
		"--kube-api-qps=200",
		"--kube-api-burst=400",
		"--profiling=false",
	}
}

// Kubeconfig is a client's configuration, with everything inside, so that the file may be copied anywhere.
func Kubeconfig(cluster, server string, authority, certificate, key []byte) string {
	return fmt.Sprintf(`apiVersion: v1
kind: Config
current-context: %[1]s
clusters:
- name: %[1]s
  cluster:
    server: %[2]s
    certificate-authority-data: %[3]s
users:
- name: %[1]s
  user:
    client-certificate-data: %[4]s
    client-key-data: %[5]s
contexts:
- name: %[1]s
  context:
    cluster: %[1]s
    user: %[1]s
`, cluster, server, encode(authority), encode(certificate), encode(key))
}
