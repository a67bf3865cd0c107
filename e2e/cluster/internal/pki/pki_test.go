package pki

import (
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"testing"
)

func read(t *testing.T, folder, file string) *x509.Certificate {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(folder, file))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return certificate
}

func TestCertificatesAreMadeOnceAndWhole(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "pki")
	// What an interrupted run left must not be taken for the real thing.
	if err := os.MkdirAll(folder+".partial", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := Ensure(folder); err != nil {
		t.Fatal(err)
	}
	first := read(t, folder, "ca.crt")
	if err := Ensure(folder); err != nil || !read(t, folder, "ca.crt").Equal(first) {
		t.Errorf("a second run changed them: %v", err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(first)
	for _, host := range []string{"127.0.0.1", "10.92.0.1", "kubernetes.default.svc"} {
		if _, err := read(t, folder, "apiserver.crt").Verify(x509.VerifyOptions{Roots: roots, DNSName: host}); err != nil {
			t.Errorf("API server as %s: %v", host, err)
		}
	}
	client := x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	if _, err := read(t, folder, "node-1.crt").Verify(client); err != nil {
		t.Errorf("node 1 as a client: %v", err)
	}
}
