// Package policy turns Kubernetes network policies into the firewall rules of one node. It is a pure function of
// the objects; an agent on every node feeds it and loads what it returns.
//
// A packet from one pod to another passes the rules twice: those for leaving, where the sender lives, and those for
// entering, where the receiver lives. A pod that no policy selects has no rules. Nodes may always reach their own
// pods, as health checks need; host-network pods have the node's address and are left out.
package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// World is what the rules depend on.
type World struct {
	Node       string
	Pods       []*corev1.Pod
	Namespaces map[string]labels.Set
	Policies   []*networkingv1.NetworkPolicy
}

// Table is the name of the firewall table; it exists in the node's own namespace only.
const Table = "tanka_policy"

// Render is the whole table, in the form that "nft -f" loads at once or not at all.
func Render(w World) string {
	pods := slices.Clone(w.Pods)
	pods = slices.DeleteFunc(pods, func(p *corev1.Pod) bool { return !addressable(p) })
	slices.SortFunc(pods, func(a, b *corev1.Pod) int { return cmp.Compare(a.Status.PodIP, b.Status.PodIP) })
	policies := slices.Clone(w.Policies)
	slices.SortFunc(policies, func(a, b *networkingv1.NetworkPolicy) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	r := renderer{world: World{w.Node, pods, w.Namespaces, policies}}
	for _, pod := range pods {
		if pod.Spec.NodeName == w.Node {
			r.pod(pod, networkingv1.PolicyTypeIngress)
			r.pod(pod, networkingv1.PolicyTypeEgress)
		}
	}
	return r.table()
}

// addressable reports a pod that has an address of its own and still uses it.
func addressable(pod *corev1.Pod) bool {
	return pod.Status.PodIP != "" && !pod.Spec.HostNetwork &&
		pod.Status.Phase != corev1.PodSucceeded && pod.Status.Phase != corev1.PodFailed
}

type renderer struct {
	world           World
	chains          strings.Builder
	ingress, egress []string // elements of the maps from address to chain
}

func (r *renderer) table() string {
	var out strings.Builder
	// The first line makes sure that the second has something to delete.
	fmt.Fprintf(&out, "table ip %[1]s\ndelete table ip %[1]s\ntable ip %[1]s {\n", Table)
	out.WriteString(r.chains.String())
	for _, hook := range []string{"forward", "input"} {
		fmt.Fprintf(&out, "\tchain %s {\n\t\ttype filter hook %s priority filter; policy accept;\n", hook, hook)
		out.WriteString("\t\tct state established,related accept\n")
		if len(r.egress) > 0 {
			fmt.Fprintf(&out, "\t\tip saddr vmap { %s }\n", strings.Join(r.egress, ", "))
		}
		if hook == "forward" && len(r.ingress) > 0 {
			fmt.Fprintf(&out, "\t\tip daddr vmap { %s }\n", strings.Join(r.ingress, ", "))
		}
		out.WriteString("\t}\n")
	}
	out.WriteString("}\n")
	return out.String()
}

// pod writes one chain: what is allowed returns, what reaches the end is dropped.
func (r *renderer) pod(pod *corev1.Pod, direction networkingv1.PolicyType) {
	var rules []string
	selected := false
	for _, policy := range r.world.Policies {
		if policy.Namespace != pod.Namespace || !selects(&policy.Spec.PodSelector, pod.Labels) || !governs(policy, direction) {
			continue
		}
		selected = true
		if direction == networkingv1.PolicyTypeIngress {
			for _, rule := range policy.Spec.Ingress {
				rules = append(rules, r.rule(direction, policy.Namespace, rule.From, rule.Ports, pod)...)
			}
		} else {
			for _, rule := range policy.Spec.Egress {
				rules = append(rules, r.rule(direction, policy.Namespace, rule.To, rule.Ports, nil)...)
			}
		}
	}
	if !selected {
		return
	}
	prefix, field := "in", "saddr"
	if direction == networkingv1.PolicyTypeEgress {
		prefix, field = "out", "daddr"
	}
	chain := prefix + "_" + strings.ReplaceAll(pod.Status.PodIP, ".", "_")
	element := pod.Status.PodIP + " : jump " + chain
	if direction == networkingv1.PolicyTypeIngress {
		r.ingress = append(r.ingress, element)
	} else {
		r.egress = append(r.egress, element)
	}
	// No policy can keep a pod from itself.
	fmt.Fprintf(&r.chains, "\tchain %s {\n\t\tip %s %s return\n", chain, field, pod.Status.PodIP)
	for _, rule := range slices.Compact(rules) {
		fmt.Fprintf(&r.chains, "\t\t%s\n", strings.TrimSpace(rule+" return"))
	}
	r.chains.WriteString("\t\tdrop\n\t}\n")
}

// governs reports whether a policy speaks about a direction. Egress counts only when it is said.
func governs(policy *networkingv1.NetworkPolicy, direction networkingv1.PolicyType) bool {
	if len(policy.Spec.PolicyTypes) > 0 {
		return slices.Contains(policy.Spec.PolicyTypes, direction)
	}
	return direction == networkingv1.PolicyTypeIngress || len(policy.Spec.Egress) > 0
}

func selects(selector *metav1.LabelSelector, set labels.Set) bool {
	parsed, err := metav1.LabelSelectorAsSelector(selector)
	return err == nil && parsed.Matches(set)
}

// rule is the matches of one rule of a policy. target is the pod whose named ports count; without one, those of
// each peer do.
func (r *renderer) rule(direction networkingv1.PolicyType, namespace string, peers []networkingv1.NetworkPolicyPeer, ports []networkingv1.NetworkPolicyPort, target *corev1.Pod) []string {
	field := "saddr"
	if direction == networkingv1.PolicyTypeEgress {
		field = "daddr"
	}
	if target == nil && hasNamedPort(ports) {
		return r.perPeer(field, namespace, peers, ports)
	}
	var sources []string
	if len(peers) == 0 {
		sources = []string{""}
	}
	for _, peer := range peers {
		if match, ok := r.peer(field, namespace, peer); ok {
			sources = append(sources, match)
		}
	}
	var rules []string
	for _, source := range sources {
		for _, port := range portMatches(ports, target) {
			rules = append(rules, strings.TrimSpace(source+" "+port))
		}
	}
	return rules
}

// perPeer writes a rule for each peer by itself, since a port's name may mean another number on each.
func (r *renderer) perPeer(field, namespace string, peers []networkingv1.NetworkPolicyPeer, ports []networkingv1.NetworkPolicyPort) []string {
	var rules []string
	for _, pod := range r.world.Pods {
		matches := len(peers) == 0
		for _, peer := range peers {
			matches = matches || r.matchesPod(namespace, peer, pod)
		}
		for _, port := range portMatches(ports, pod) {
			if matches {
				rules = append(rules, fmt.Sprintf("ip %s %s %s", field, pod.Status.PodIP, port))
			}
		}
	}
	return rules
}

// peer is the match for one peer; ok is false when nobody is meant at present.
func (r *renderer) peer(field, namespace string, peer networkingv1.NetworkPolicyPeer) (match string, ok bool) {
	if block := peer.IPBlock; block != nil {
		if strings.Contains(block.CIDR, ":") {
			return "", false // the cluster has no IPv6
		}
		match = fmt.Sprintf("ip %s %s", field, block.CIDR)
		if len(block.Except) > 0 {
			match += fmt.Sprintf(" ip %s != { %s }", field, strings.Join(block.Except, ", "))
		}
		return match, true
	}
	var addresses []string
	for _, pod := range r.world.Pods {
		if r.matchesPod(namespace, peer, pod) {
			addresses = append(addresses, pod.Status.PodIP)
		}
	}
	if len(addresses) == 0 {
		return "", false
	}
	return fmt.Sprintf("ip %s { %s }", field, strings.Join(addresses, ", ")), true
}

func (r *renderer) matchesPod(namespace string, peer networkingv1.NetworkPolicyPeer, pod *corev1.Pod) bool {
	if peer.IPBlock != nil {
		return false
	}
	if peer.NamespaceSelector == nil {
		if pod.Namespace != namespace {
			return false
		}
	} else if !selects(peer.NamespaceSelector, r.world.Namespaces[pod.Namespace]) {
		return false
	}
	return peer.PodSelector == nil || selects(peer.PodSelector, pod.Labels)
}
