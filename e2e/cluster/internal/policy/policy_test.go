package policy

import (
	"os/exec"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/yaml"
)

func pod(namespace, app, address, node string, port int32) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: app, Labels: map[string]string{"app": app}},
		Spec: corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{
			Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: port}},
		}}},
		Status: corev1.PodStatus{PodIP: address, Phase: corev1.PodRunning},
	}
}

func world(t *testing.T, specs ...string) World {
	t.Helper()
	w := World{
		Node: "node-1",
		Pods: []*corev1.Pod{
			pod("shop", "server", "10.91.1.2", "node-1", 8000),
			pod("shop", "client", "10.91.1.3", "node-1", 9000),
			pod("shop", "far", "10.91.2.2", "node-2", 8080),
			pod("ops", "prometheus", "10.91.2.3", "node-2", 9090),
		},
		Namespaces: map[string]labels.Set{"shop": {"team": "shop"}, "ops": {"team": "ops"}},
	}
	for _, spec := range specs {
		policy := networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "p"}}
		if err := yaml.UnmarshalStrict([]byte(spec), &policy.Spec); err != nil {
			t.Fatal(err)
		}
		w.Policies = append(w.Policies, &policy)
	}
	return w
}

// chain is the rules of one chain.
func chain(table, name string) []string {
	_, rest, found := strings.Cut(table, "chain "+name+" {\n")
	if !found {
		return nil
	}
	body, _, _ := strings.Cut(rest, "\t}\n")
	var rules []string
	for line := range strings.Lines(body) {
		rules = append(rules, strings.TrimSpace(line))
	}
	return rules
}

func TestRules(t *testing.T) {
	const self = "ip saddr 10.91.1.2 return"
	for name, test := range map[string]struct {
		spec  string
		chain string
		want  []string
	}{
		"no policy, no chain":    {"podSelector: {matchLabels: {app: none}}", "in_10_91_1_2", nil},
		"all closed":             {"podSelector: {}", "in_10_91_1_2", []string{self, "drop"}},
		"an empty rule is open":  {"{podSelector: {}, ingress: [{}]}", "in_10_91_1_2", []string{self, "return", "drop"}},
		"ingress says no egress": {"podSelector: {}", "out_10_91_1_2", nil},
		"pods of the namespace": {
			"{podSelector: {matchLabels: {app: server}}, ingress: [{from: [{podSelector: {}}]}]}", "in_10_91_1_2",
			[]string{self, "ip saddr { 10.91.1.2, 10.91.1.3, 10.91.2.2 } return", "drop"},
		},
		"another namespace": {
			"{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: ops}}}]}]}", "in_10_91_1_2",
			[]string{self, "ip saddr { 10.91.2.3 } return", "drop"},
		},
		"nobody matches": {
			"{podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {app: none}}}]}]}", "in_10_91_1_2",
			[]string{self, "drop"},
		},
		"named port and range": {
			"{podSelector: {}, ingress: [{ports: [{port: http}, {port: 30, endPort: 40, protocol: UDP}, {port: none}]}]}", "in_10_91_1_2",
			[]string{self, "tcp dport 8000 return", "udp dport 30-40 return", "drop"},
		},
		"block with a hole": {
			"{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.91.2.0/24]}}]}]}", "in_10_91_1_2",
			[]string{self, "ip saddr 10.0.0.0/8 ip saddr != { 10.91.2.0/24 } return", "drop"},
		},
		"egress by a name that differs": {
			"{podSelector: {matchLabels: {app: server}}, policyTypes: [Egress], egress: [{to: [{podSelector: {}}], ports: [{port: http}]}]}", "out_10_91_1_2",
			[]string{
				"ip daddr 10.91.1.2 return", "ip daddr 10.91.1.2 tcp dport 8000 return",
				"ip daddr 10.91.1.3 tcp dport 9000 return", "ip daddr 10.91.2.2 tcp dport 8080 return", "drop",
			},
		},
	} {
		got := chain(Render(world(t, test.spec)), test.chain)
		if strings.Join(got, "\n") != strings.Join(test.want, "\n") {
			t.Errorf("%s:\n%s", name, strings.Join(got, "\n"))
		}
	}
}

func TestPodsOfOtherNodesAndDeadPodsHaveNoChain(t *testing.T) {
	w := world(t, "podSelector: {}")
	w.Pods[1].Status.Phase = corev1.PodSucceeded
	w.Pods = append(w.Pods, pod("shop", "host", "10.90.0.11", "node-1", 1))
	w.Pods[4].Spec.HostNetwork = true
	table := Render(w)
	for _, address := range []string{"10_91_1_3", "10_91_2_2", "10_90_0_11"} {
		if chain(table, "in_"+address) != nil {
			t.Errorf("%s has a chain", address)
		}
	}
}

func TestTheFirewallReadsIt(t *testing.T) {
	table := Render(world(t,
		"{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.91.2.0/24]}}, {podSelector: {}}], ports: [{port: http}]}]}",
		"{podSelector: {}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {}}], ports: [{protocol: UDP}, {port: http}]}]}"))
	command := exec.Command("unshare", "--net", "nft", "--check", "--file", "-")
	command.Stdin = strings.NewReader(table)
	if output, err := command.CombinedOutput(); err != nil {
		t.Fatalf("nft (is it installed, and are we root?): %v\n%s\n%s", err, output, table)
	}
}
