// Command probe is what the self-test runs in pods: a server, and small questions whose answer is the exit code.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"
)

const usage = "usage: probe serve PORT | get URL | dial HOST:PORT | resolve NAME | write FILE TEXT | read FILE | burn"

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	if len(arguments) == 0 {
		return errors.New(usage)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	name, rest := arguments[0], append(arguments[1:], "", "")
	switch name {
	case "serve":
		http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
			host, _ := os.Hostname()
			fmt.Fprintln(w, host)
		})
		fmt.Println("serving on", rest[0])
		return http.ListenAndServe(":"+rest[0], nil)
	case "get":
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, rest[0], nil)
		if err != nil {
			return err
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		_, err = io.Copy(os.Stdout, response.Body)
		return err
	case "dial":
		connection, err := new(net.Dialer).DialContext(ctx, "tcp", rest[0])
		if err != nil {
			return err
		}
		return connection.Close()
	case "resolve":
		addresses, err := net.DefaultResolver.LookupHost(ctx, rest[0])
		fmt.Println(addresses)
		return err
	case "write":
		return os.WriteFile(rest[0], []byte(rest[1]), 0o600)
	case "read":
		text, err := os.ReadFile(rest[0])
		fmt.Print(string(text))
		return err
	case "burn":
		for start := time.Now(); time.Since(start) < time.Hour; {
		}
		return nil
	default:
		return errors.New(usage)
	}
}
