// Command node-agent does on every node what a cluster needs an add-on for: it enforces network policies and
// provides persistent volumes.
package main

import (
	"context"
	"flag"
	"log"
	"os/signal"
	"syscall"

	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"tanka.dev/e2e/cluster/internal/policy"
	"tanka.dev/e2e/cluster/internal/volume"
)

func main() {
	kubeconfig := flag.String("kubeconfig", "", "how to reach the API server")
	node := flag.String("node", "", "the node that this agent runs on")
	volumes := flag.String("volumes", "", "folder for persistent volumes")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	if err != nil {
		log.Fatalf("reading the kubeconfig: %v", err)
	}
	config.QPS, config.Burst = 100, 200
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		log.Fatalf("making a client: %v", err)
	}
	keeper := volume.Keeper{Node: *node, Folder: *volumes, Client: client}
	var all errgroup.Group
	all.Go(func() error { return policy.Enforce(ctx, *node, informers.NewSharedInformerFactory(client, 0)) })
	all.Go(func() error { return keeper.Run(ctx, informers.NewSharedInformerFactory(client, 0)) })
	if err := all.Wait(); err != nil {
		log.Fatal(err)
	}
}
