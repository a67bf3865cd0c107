package policy

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

func hasNamedPort(ports []networkingv1.NetworkPolicyPort) bool {
	for _, port := range ports {
		if port.Port != nil && port.Port.Type == intstr.String {
			return true
		}
	}
	return false
}

// portMatches is one match for each port of a rule; no ports at all mean every packet. A name that the pod does
// not have matches nothing.
func portMatches(ports []networkingv1.NetworkPolicyPort, named *corev1.Pod) []string {
	if len(ports) == 0 {
		return []string{""}
	}
	var matches []string
	for _, port := range ports {
		protocol := corev1.ProtocolTCP
		if port.Protocol != nil {
			protocol = *port.Protocol
		}
		name := strings.ToLower(string(protocol))
		switch {
		case port.Port == nil:
			matches = append(matches, "meta l4proto "+name)
		case port.Port.Type == intstr.String:
			if number := namedPort(named, port.Port.StrVal, protocol); number != 0 {
				matches = append(matches, fmt.Sprintf("%s dport %d", name, number))
			}
		case port.EndPort != nil:
			matches = append(matches, fmt.Sprintf("%s dport %d-%d", name, port.Port.IntVal, *port.EndPort))
		default:
			matches = append(matches, fmt.Sprintf("%s dport %d", name, port.Port.IntVal))
		}
	}
	return matches
}

func namedPort(pod *corev1.Pod, name string, protocol corev1.Protocol) int32 {
	if pod == nil {
		return 0
	}
	containers := append(append([]corev1.Container{}, pod.Spec.InitContainers...), pod.Spec.Containers...)
	for _, container := range containers {
		for _, port := range container.Ports {
			sameProtocol := port.Protocol == protocol || (port.Protocol == "" && protocol == corev1.ProtocolTCP)
			if port.Name == name && sameProtocol {
				return port.ContainerPort
			}
		}
	}
	return 0
}
