// Command tanka-cluster starts, stops and looks after the Kubernetes cluster that tests and the demo run on.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"tanka.dev/e2e/cluster/internal/refusal"
)

// componentsKey names the folder of built components; the build script sets it.
var componentsKey = "unset"

const usage = `usage: tanka-cluster COMMAND

  up [--control-plane-only [--controller-manager]]   start the cluster, or what is missing of it
  down                      remove every trace of it
  status                    what runs; exit code 2 if anything does not
  kubeconfig                print the path of the kubeconfig
  kubectl ARGUMENTS         kubectl on this cluster
  load-images FILE...       import docker-archive or oci-archive files into every node
  logs [WORD]               logs of the daemons whose name contains WORD
  kill-node N, start-node N a power failure of node N, and its return with its disk
  inside [--node N] -- COMMAND   run a command in node N's network (default 1)
  expose NAME ADDRESS:PORT  open a port on 127.0.0.1 to a pod or service; prints it
  selftest                  show on the running cluster that everything works
  selftest --robustness     show on clusters of its own that every fault is recovered from
  snapshot FILE             record the machine's processes, mounts, links, rules and cgroups
  check-clean [--against FILE]   list what a cluster left on the machine; exit code 2 if anything

environment: CLUSTER=local|kind|existing, CLUSTER_NAME (tanka), NODES (1 to 3), API_PORT, TANKA_STATE, TANKA_CACHE`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:])
	if err != nil && ctx.Err() != nil && errors.Is(err, context.Canceled) {
		err = refusal.New("interrupted; run \"up\" to go on or \"down\" to remove what was started")
	}
	var exit *exitError
	if errors.As(err, &exit) {
		os.Exit(exit.code)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "tanka-cluster: %v\n", err)
	}
	os.Exit(refusal.ExitCode(err))
}

// exitError passes on the exit code of a program that has said itself what was wrong.
type exitError struct{ code int }

func (e *exitError) Error() string { return fmt.Sprintf("exit code %d", e.code) }

func run(ctx context.Context, arguments []string) error {
	if len(arguments) == 0 {
		return refusal.New("say what to do\n%s", usage)
	}
	name, rest := arguments[0], arguments[1:]
	if hidden, ok := hiddenCommands[name]; ok {
		return hidden(rest)
	}
	switch name {
	case "help", "-h", "--help":
		fmt.Println(usage)
		return nil
	}
	settings, err := readEnvironment()
	if err != nil {
		return err
	}
	backend, err := chooseBackend(ctx, settings)
	if err != nil {
		return err
	}
	command, ok := backend[name]
	if !ok {
		if _, elsewhere := localCommands[name]; elsewhere {
			return refusal.New("%s works only on a local cluster; set CLUSTER=local", name)
		}
		return refusal.New("%q is not a command\n%s", name, usage)
	}
	return command(ctx, settings, rest)
}
