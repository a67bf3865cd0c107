package policy

import (
	"context"
	"fmt"
	"log"
	"os/exec"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"
)

// settle is how long changes are collected before the rules are written.
const settle = 30 * time.Millisecond

// Enforce keeps the firewall of this network namespace in step with the cluster until the context ends.
func Enforce(ctx context.Context, node string, factory informers.SharedInformerFactory) error {
	pods := factory.Core().V1().Pods()
	namespaces := factory.Core().V1().Namespaces()
	policies := factory.Networking().V1().NetworkPolicies()
	changed := make(chan struct{}, 1)
	notify := func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	}
	handler := cache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { notify() }, UpdateFunc: func(_, _ any) { notify() }, DeleteFunc: func(any) { notify() },
	}
	for _, informer := range []cache.SharedIndexInformer{pods.Informer(), namespaces.Informer(), policies.Informer()} {
		if _, err := informer.AddEventHandler(handler); err != nil {
			return fmt.Errorf("watching: %w", err)
		}
	}
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	loaded := ""
	for {
		world := World{Node: node, Namespaces: map[string]labels.Set{}}
		world.Pods, _ = pods.Lister().List(labels.Everything()) // a lister reads memory and cannot fail
		world.Policies, _ = policies.Lister().List(labels.Everything())
		all, _ := namespaces.Lister().List(labels.Everything())
		for _, namespace := range all {
			world.Namespaces[namespace.Name] = namespace.Labels
		}
		if rules := Render(world); rules != loaded {
			if err := load(ctx, rules); err != nil {
				log.Printf("policy: %v", err)
				time.AfterFunc(time.Second, notify)
			} else {
				loaded = rules
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
			time.Sleep(settle)
		}
	}
}

func load(ctx context.Context, rules string) error {
	command := exec.CommandContext(ctx, "nft", "-f", "-")
	command.Stdin = strings.NewReader(rules)
	if output, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("loading rules: %s: %w", strings.TrimSpace(string(output)), err)
	}
	return nil
}
