package gateway

import (
	"io"
	"net"
	"testing"
)

func TestAHalfClosedConnectionStillCarriesTheAnswer(t *testing.T) {
	server, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	go func() {
		connection, err := server.Accept()
		if err != nil {
			return
		}
		question, _ := io.ReadAll(connection) // ends only when the end of the question is passed on
		_, _ = connection.Write(append([]byte("re: "), question...))
		connection.Close()
	}()
	door, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer door.Close()
	go Serve(door, server.Addr().String()) //nolint:errcheck // it ends when the door closes
	client, err := net.Dial("tcp4", door.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	_, _ = client.Write([]byte("hello"))
	_ = client.(*net.TCPConn).CloseWrite()
	answer, err := io.ReadAll(client)
	if err != nil || string(answer) != "re: hello" {
		t.Errorf("%q, %v", answer, err)
	}
}
