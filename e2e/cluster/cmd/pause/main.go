// Command pause is the process that holds a pod's namespaces open. It imports as little as possible: one runs in
// every pod.
package main

import "syscall"

func main() {
	for {
		// The runtime's own handlers end the process on SIGTERM and SIGINT.
		syscall.Select(0, nil, nil, nil, nil) //nolint:errcheck
	}
}
