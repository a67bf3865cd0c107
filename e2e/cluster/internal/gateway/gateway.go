// Package gateway carries TCP connections from a socket that was opened outside a network namespace to an address
// inside it.
package gateway

import (
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"tanka.dev/e2e/cluster/internal/refusal"
)

// Command is the launcher's hidden subcommand that runs Run.
const Command = "gateway"

// inheritedSocket is the file descriptor after the three standard streams.
const inheritedSocket = 3

// Run accepts connections on the inherited socket for ever and joins each to the target.
func Run(arguments []string) error {
	if len(arguments) != 1 {
		return refusal.New("%s is started by \"up\" only; run that", Command)
	}
	file := os.NewFile(inheritedSocket, "listener")
	if file == nil {
		return refusal.New("%s is started by \"up\" only; run that", Command)
	}
	listener, err := net.FileListener(file)
	if err != nil {
		return refusal.New("%s is started by \"up\" only; run that", Command)
	}
	file.Close()
	return Serve(listener, arguments[0])
}

// Serve joins every connection that a listener accepts to the target.
func Serve(listener net.Listener, target string) error {
	for {
		connection, err := listener.Accept()
		if err != nil {
			return fmt.Errorf("accepting a connection: %w", err)
		}
		go join(connection.(*net.TCPConn), target)
	}
}

func join(client *net.TCPConn, target string) {
	defer client.Close()
	dialled, err := net.DialTimeout("tcp4", target, 5*time.Second)
	if err != nil {
		return // the client sees its connection closed, as it would without us
	}
	server := dialled.(*net.TCPConn)
	defer server.Close()
	var both sync.WaitGroup
	both.Go(func() { pump(server, client) })
	both.Go(func() { pump(client, server) })
	both.Wait()
}

// pump copies one direction and passes on its end, so that half-closed connections work.
func pump(to, from *net.TCPConn) {
	_, err := io.Copy(to, from)
	if err != nil {
		to.Close()
		from.Close()
		return
	}
	_ = to.CloseWrite()
}
