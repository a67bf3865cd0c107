// Package kubeapi is the few requests that the launcher itself makes to an API server. A whole client library
// would make the launcher ten times as large, and slower to build and to start.
package kubeapi

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"sigs.k8s.io/yaml"

	"tanka.dev/e2e/cluster/internal/refusal"
)

// Client talks to one API server.
type Client struct {
	server string
	http   *http.Client
}

// StatusError is an answer that is not a success.
type StatusError struct {
	Code    int
	Message string
}

func (e *StatusError) Error() string {
	return fmt.Sprintf("the API server answered %d: %s", e.Code, e.Message)
}

type kubeconfig struct {
	Clusters []struct {
		Cluster struct {
			Server    string `json:"server"`
			Authority string `json:"certificate-authority-data"`
		} `json:"cluster"`
	} `json:"clusters"`
	Users []struct {
		User struct {
			Certificate string `json:"client-certificate-data"`
			Key         string `json:"client-key-data"`
		} `json:"user"`
	} `json:"users"`
}

// New reads a kubeconfig that this program wrote.
func New(file string) (*Client, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, refusal.New("there is no %s; start the cluster first", file)
	}
	var config kubeconfig
	if err := yaml.Unmarshal(text, &config); err != nil || len(config.Clusters) != 1 || len(config.Users) != 1 {
		return nil, refusal.New("%s is not a kubeconfig of ours; take the cluster down and up again", file)
	}
	authority, _ := base64.StdEncoding.DecodeString(config.Clusters[0].Cluster.Authority)
	certificate, _ := base64.StdEncoding.DecodeString(config.Users[0].User.Certificate)
	key, _ := base64.StdEncoding.DecodeString(config.Users[0].User.Key)
	pair, err := tls.X509KeyPair(certificate, key)
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(authority) || err != nil {
		return nil, refusal.New("%s holds no usable certificates; take the cluster down and up again", file)
	}
	transport := &http.Transport{
		TLSClientConfig:     &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}},
		ForceAttemptHTTP2:   true,
		TLSHandshakeTimeout: 5 * time.Second,
	}
	return &Client{config.Clusters[0].Cluster.Server, &http.Client{Transport: transport, Timeout: 10 * time.Second}}, nil
}

// Do sends one request and returns the body of a successful answer.
func (c *Client) Do(ctx context.Context, method, path, contentType string, body []byte) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, method, c.server+path, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("making a request: %w", err)
	}
	if contentType != "" {
		request.Header.Set("Content-Type", contentType)
	}
	response, err := c.http.Do(request)
	if err != nil {
		return nil, fmt.Errorf("asking the API server: %w", err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, fmt.Errorf("reading the API server's answer: %w", err)
	}
	if response.StatusCode >= 300 {
		return nil, &StatusError{response.StatusCode, string(answer)}
	}
	return answer, nil
}

// Get reads an object into a Go value.
func (c *Client) Get(ctx context.Context, path string, into any) error {
	answer, err := c.Do(ctx, http.MethodGet, path, "", nil)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(answer, into); err != nil {
		return fmt.Errorf("reading %s: %w", path, err)
	}
	return nil
}

// Apply makes or changes an object by server-side apply.
func (c *Client) Apply(ctx context.Context, path string, document []byte) error {
	_, err := c.Do(ctx, http.MethodPatch, path+"?fieldManager=tanka-cluster&force=true", "application/apply-patch+yaml", document)
	return err
}

// Ready reports whether the API server says that it is ready.
func (c *Client) Ready(ctx context.Context) bool {
	_, err := c.Do(ctx, http.MethodGet, "/readyz", "", nil)
	return err == nil
}
