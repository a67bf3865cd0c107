//go:build !linux

package main

import (
	"context"

	"tanka.dev/e2e/cluster/internal/refusal"
)

var hiddenCommands = map[string]func([]string) error{}

var localCommands = map[string]command{"up": refuseLocal, "down": refuseLocal, "status": refuseLocal}

func refuseLocal(context.Context, environment, []string) error {
	return refusal.New("a local cluster needs Linux; start a Docker engine and set CLUSTER=kind")
}
