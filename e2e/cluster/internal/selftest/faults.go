package selftest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// hostAccess uses the ways in that a person has.
func (b *Bench) hostAccess(ctx context.Context) error {
	said, err := b.kubectl(ctx, "-n", namespace, "logs", "server-0")
	if err != nil || !strings.Contains(said, "serving on 8000") {
		return fmt.Errorf("logs said %q: %w", said, err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	forward := exec.CommandContext(ctx, b.Cluster.Component("kube"), "kubectl", "-n", namespace, "port-forward", "service/server", ":80", "--address=127.0.0.1")
	forward.Env = append(os.Environ(), "KUBECONFIG="+b.Cluster.Kubeconfig())
	pipe, err := forward.StdoutPipe()
	if err != nil {
		return fmt.Errorf("reading port-forward: %w", err)
	}
	if err := forward.Start(); err != nil {
		return fmt.Errorf("starting port-forward: %w", err)
	}
	defer forward.Wait() //nolint:errcheck // it ends by our signal
	defer cancel()
	line, err := bufio.NewReader(pipe).ReadString('\n') // "Forwarding from 127.0.0.1:PORT -> 8000"
	fields := strings.Fields(line)
	if err != nil || len(fields) < 3 {
		return fmt.Errorf("port-forward said %q: %w", line, err)
	}
	response, err := http.Get("http://" + fields[2])
	if err != nil {
		return fmt.Errorf("through port-forward: %w", err)
	}
	defer response.Body.Close()
	if body, _ := io.ReadAll(response.Body); strings.TrimSpace(string(body)) != "server-0" {
		return fmt.Errorf("through port-forward came %q", body)
	}
	return nil
}

func (b *Bench) volumeGrows(ctx context.Context) error {
	_, err := b.kubectl(ctx, "-n", namespace, "patch", "pvc", "data-server-0", "--type=merge",
		"-p", `{"spec":{"resources":{"requests":{"storage":"2Gi"}}}}`)
	if err != nil {
		return err
	}
	return b.eventually(ctx, 20*time.Second, func() error {
		size, err := b.kubectl(ctx, "-n", namespace, "get", "pvc", "data-server-0", "-o", "jsonpath={.status.capacity.storage}")
		if err == nil && size != "2Gi" {
			err = fmt.Errorf("the size is still %s", size)
		}
		return err
	})
}

func (b *Bench) metrics(ctx context.Context) error {
	return b.eventually(ctx, 90*time.Second, func() error {
		said, err := b.kubectl(ctx, "-n", namespace, "top", "pods", "--no-headers")
		if err == nil && strings.Count(said, "\n") < 2 {
			err = errors.New("not every pod has metrics yet")
		}
		if err != nil {
			return err
		}
		value, err := b.kubectl(ctx, "-n", namespace, "get", "hpa", "client", "-o",
			"jsonpath={.status.currentMetrics[0].resource.current.averageUtilization}")
		if err != nil {
			return err
		}
		if _, err := strconv.Atoi(value); err != nil {
			return fmt.Errorf("the autoscaler sees %q", value)
		}
		return nil
	})
}

func (b *Bench) nodeLoss(ctx context.Context) error {
	node := b.lastNode()
	ready := func(want string) func() error {
		return func() error {
			status, err := b.kubectl(ctx, "get", "node", node.Name(), "-o", `jsonpath={.status.conditions[?(@.type=="Ready")].status}`)
			if err == nil && status != want {
				err = fmt.Errorf("%s has Ready=%s, not %s", node.Name(), status, want)
			}
			return err
		}
	}
	if _, err := b.launcher(ctx, "kill-node", strconv.Itoa(int(node))); err != nil {
		return err
	}
	start := time.Now()
	if err := b.eventually(ctx, 40*time.Second, ready("Unknown")); err != nil {
		return err
	}
	fmt.Fprintf(b.Out, "   node noticed as lost after %.1f s\n", time.Since(start).Seconds())
	start = time.Now()
	if _, err := b.launcher(ctx, "start-node", strconv.Itoa(int(node))); err != nil {
		return err
	}
	fmt.Fprintf(b.Out, "   node ready again after %.1f s\n", time.Since(start).Seconds())
	err := b.eventually(ctx, 60*time.Second, func() error {
		word, err := b.inPod(ctx, "server-0", "read", "/data/word")
		if err == nil && word != "kept" {
			err = fmt.Errorf("the volume holds %q", word)
		}
		return err
	})
	fmt.Fprintf(b.Out, "   its pod answers with its data after %.1f s\n", time.Since(start).Seconds())
	return err
}

func (b *Bench) volumeDeleted(ctx context.Context) error {
	folders := func() []string {
		found, _ := filepath.Glob(filepath.Join(b.Cluster.NodeDir(b.lastNode()), "volumes", "pvc-*"))
		return found
	}
	if len(folders()) == 0 {
		return errors.New("there is no folder to begin with")
	}
	if _, err := b.kubectl(ctx, "-n", namespace, "delete", "statefulset/server", "pvc/data-server-0"); err != nil {
		return err
	}
	return b.eventually(ctx, 30*time.Second, func() error {
		if left := folders(); len(left) > 0 {
			return fmt.Errorf("%v is still there", left)
		}
		return nil
	})
}
