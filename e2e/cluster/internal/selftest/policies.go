package selftest

import (
	"context"
	"errors"
	"fmt"
	"time"
)

const policyHead = `apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: %s, namespace: selftest}
spec:
  podSelector: {matchLabels: {app: %s}}
`

func (b *Bench) ingressPolicy(ctx context.Context) error {
	head := fmt.Sprintf(policyHead, "ingress", "server")
	return b.policy(ctx, "ingress",
		head+"  policyTypes: [Ingress]\n",
		head+"  ingress: [{from: [{podSelector: {matchLabels: {app: client}}}], ports: [{port: http}]}]\n",
		head+"  ingress: [{from: [{podSelector: {matchLabels: {app: other}}}]}]\n",
	)
}

func (b *Bench) egressPolicy(ctx context.Context) error {
	head := fmt.Sprintf(policyHead, "egress", "client")
	dns := "{ports: [{port: 53, protocol: UDP}, {port: 5353, protocol: UDP}]}"
	return b.policy(ctx, "egress",
		head+"  policyTypes: [Egress]\n  egress: ["+dns+"]\n",
		head+"  policyTypes: [Egress]\n  egress: ["+dns+", {to: [{podSelector: {matchLabels: {app: server}}}], ports: [{port: 8000}]}]\n",
		head+"  policyTypes: [Egress]\n  egress: ["+dns+", {to: [{namespaceSelector: {matchLabels: {none: such}}}]}]\n",
	)
}

// policy expects the way from client to server closed, open and closed under three versions of a policy, and open
// without it.
func (b *Bench) policy(ctx context.Context, name, closed, open, closedAgain string) error {
	for i, version := range []string{closed, open, closedAgain} {
		if _, err := b.kubectlInput(ctx, version, "apply", "-f", "-"); err != nil {
			return err
		}
		if err := b.expectWay(ctx, i == 1); err != nil {
			return fmt.Errorf("version %d of the policy: %w", i+1, err)
		}
	}
	if _, err := b.kubectl(ctx, "-n", namespace, "delete", "networkpolicy", name); err != nil {
		return err
	}
	return b.expectWay(ctx, true)
}

func (b *Bench) expectWay(ctx context.Context, open bool) error {
	return b.eventually(ctx, 10*time.Second, func() error {
		_, err := b.inPod(ctx, "deploy/client", "dial", "server:80")
		if !open && err == nil {
			return errors.New("the way is open and should be closed")
		}
		if !open {
			return nil
		}
		return err
	})
}
