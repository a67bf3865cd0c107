package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"tanka.dev/e2e/cluster/internal/layout"
	"tanka.dev/e2e/cluster/internal/refusal"
)

// environment is what the environment variables say.
type environment struct {
	cluster layout.Cluster
	kind    string // which sort of cluster: local, kind or existing; "" to choose
	nodes   int    // 0 when unset
	port    int    // 0 when unset
}

func readEnvironment() (environment, error) {
	cache := os.Getenv("TANKA_CACHE")
	if cache == "" {
		base, err := os.UserCacheDir()
		if err != nil {
			return environment{}, refusal.New("neither TANKA_CACHE nor HOME is set; set TANKA_CACHE to a folder for binaries and images")
		}
		cache = filepath.Join(base, "tanka")
	}
	state := os.Getenv("TANKA_STATE")
	if state == "" {
		root, err := repositoryRoot()
		if err != nil {
			return environment{}, err
		}
		state = filepath.Join(root, ".tanka")
	}
	name := os.Getenv("CLUSTER_NAME")
	if name == "" {
		name = "tanka"
	}
	cluster, err := layout.New(name, state, cache, componentsKey)
	if err != nil {
		return environment{}, err
	}
	nodes, err := number("NODES", 1, layout.MaxNodes)
	if err != nil {
		return environment{}, err
	}
	port, err := number("API_PORT", 1, 65535)
	if err != nil {
		return environment{}, err
	}
	return environment{cluster: cluster, kind: os.Getenv("CLUSTER"), nodes: nodes, port: port}, nil
}

// repositoryRoot looks upwards from the working directory for the folder that holds e2e/cluster.
func repositoryRoot() (string, error) {
	folder, err := os.Getwd()
	if err != nil {
		return "", refusal.New("the working directory is gone; change to the repository")
	}
	for ; ; folder = filepath.Dir(folder) {
		if _, err := os.Stat(filepath.Join(folder, "e2e", "cluster", "go.mod")); err == nil {
			return folder, nil
		}
		if folder == filepath.Dir(folder) {
			return "", refusal.New("this is not a folder of the repository; change to it, or set TANKA_STATE to a folder for the cluster's state")
		}
	}
}

func number(variable string, least, most int) (int, error) {
	text := os.Getenv(variable)
	if text == "" {
		return 0, nil
	}
	value, err := strconv.Atoi(text)
	if err != nil || value < least || value > most {
		return 0, refusal.New("%s=%q is not usable; give a number from %d to %d", variable, text, least, most)
	}
	return value, nil
}

// dockerAnswers asks the engine, not the client: a client alone is no use.
func dockerAnswers(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return exec.CommandContext(ctx, "docker", "info").Run() == nil
}

type command func(context.Context, environment, []string) error

// chooseBackend picks the commands for the sort of cluster that is asked for, or that this machine can run.
func chooseBackend(ctx context.Context, e environment) (map[string]command, error) {
	switch e.kind {
	case "local":
		return localCommands, nil
	case "kind":
		return kindCommands, nil
	case "existing":
		return existingCommands, nil
	case "":
		if dockerAnswers(ctx) {
			return kindCommands, nil
		}
		return localCommands, nil
	default:
		return nil, refusal.New("CLUSTER=%q is not usable; choose local, kind or existing", e.kind)
	}
}
