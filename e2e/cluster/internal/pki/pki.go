// Package pki makes the certificates of a cluster, all at once, in a folder that appears whole or not at all.
package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"tanka.dev/e2e/cluster/internal/layout"
)

// lifetime is long for a throw-away cluster, so that none dies of an expired certificate.
const lifetime = 5 * 365 * 24 * time.Hour

// Ensure makes the certificates in a folder unless they are there.
func Ensure(folder string) error {
	if _, err := os.Stat(folder); err == nil {
		return nil
	}
	partial := folder + ".partial"
	if err := os.RemoveAll(partial); err != nil {
		return fmt.Errorf("clearing certificates of an interrupted run: %w", err)
	}
	if err := os.MkdirAll(partial, 0o700); err != nil {
		return fmt.Errorf("making the certificates' folder: %w", err)
	}
	if err := write(partial); err != nil {
		return err
	}
	if err := os.Rename(partial, folder); err != nil {
		return fmt.Errorf("putting certificates in place: %w", err)
	}
	return nil
}

func write(folder string) error {
	cluster, err := newAuthority(folder, "ca", "tanka-cluster")
	if err != nil {
		return err
	}
	frontProxy, err := newAuthority(folder, "front-proxy-ca", "tanka-front-proxy")
	if err != nil {
		return err
	}
	for _, subject := range subjects() {
		if err := cluster.issue(folder, subject); err != nil {
			return err
		}
	}
	if err := frontProxy.issue(folder, subject{file: "front-proxy-client", name: "front-proxy-client"}); err != nil {
		return err
	}
	return writeServiceAccountKey(folder)
}

// subject is whom a certificate is for. With addresses it is a server's, otherwise a client's.
type subject struct {
	file, name, group string
	hosts             []string
	addresses         []string
}

func subjects() []subject {
	all := []subject{
		{
			file: "apiserver", name: "kube-apiserver",
			hosts: []string{
				"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc",
				"kubernetes.default.svc.cluster.local",
			},
			addresses: []string{"127.0.0.1", layout.ControlPlaneIP, layout.APIServiceIP},
		},
		{file: "apiserver-kubelet-client", name: "kube-apiserver-kubelet-client", group: "system:masters"},
		{file: "admin", name: "kubernetes-admin", group: "system:masters"},
		{file: "controller-manager", name: "system:kube-controller-manager"},
		{file: "scheduler", name: "system:kube-scheduler"},
		{file: "kube-proxy", name: "system:kube-proxy"},
		{file: "node-agent", name: "tanka:node-agent", group: "system:masters"},
	}
	for _, node := range layout.Nodes(layout.MaxNodes) {
		all = append(all,
			subject{file: node.Name(), name: "system:node:" + node.Name(), group: "system:nodes"},
			subject{
				file: node.Name() + "-server", name: node.Name(),
				hosts: []string{node.Name()}, addresses: []string{node.IP(), "127.0.0.1"},
			})
	}
	return all
}

type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newAuthority(folder, file, name string) (authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return authority{}, fmt.Errorf("making a key: %w", err)
	}
	template := template(name, "")
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment
	encoded, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return authority{}, fmt.Errorf("making authority %s: %w", name, err)
	}
	certificate, err := x509.ParseCertificate(encoded)
	if err != nil {
		return authority{}, fmt.Errorf("reading authority %s: %w", name, err)
	}
	return authority{certificate, key}, writePair(folder, file, encoded, key)
}

func (a authority) issue(folder string, s subject) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("making a key: %w", err)
	}
	template := template(s.name, s.group)
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	if len(s.addresses) > 0 {
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		template.DNSNames = s.hosts
		for _, address := range s.addresses {
			template.IPAddresses = append(template.IPAddresses, net.ParseIP(address))
		}
	}
	encoded, err := x509.CreateCertificate(rand.Reader, template, a.certificate, &key.PublicKey, a.key)
	if err != nil {
		return fmt.Errorf("making certificate %s: %w", s.file, err)
	}
	return writePair(folder, s.file, encoded, key)
}

func template(name, group string) *x509.Certificate {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		panic(err) // the machine has no randomness
	}
	certificate := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(lifetime),
	}
	if group != "" {
		certificate.Subject.Organization = []string{group}
	}
	return certificate
}

// writeServiceAccountKey makes the key that signs service accounts' tokens.
func writeServiceAccountKey(folder string) error {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return fmt.Errorf("making the service accounts' key: %w", err)
	}
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return fmt.Errorf("encoding the service accounts' key: %w", err)
	}
	if err := writePEM(folder, "sa.pub", "PUBLIC KEY", public); err != nil {
		return err
	}
	return writePEM(folder, "sa.key", "RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(key))
}

func writePair(folder, file string, certificate []byte, key *ecdsa.PrivateKey) error {
	encoded, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return fmt.Errorf("encoding key %s: %w", file, err)
	}
	if err := writePEM(folder, file+".crt", "CERTIFICATE", certificate); err != nil {
		return err
	}
	return writePEM(folder, file+".key", "EC PRIVATE KEY", encoded)
}

func writePEM(folder, file, kind string, content []byte) error {
	text := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: content})
	if err := os.WriteFile(filepath.Join(folder, file), text, 0o600); err != nil {
		return fmt.Errorf("writing %s: %w", file, err)
	}
	return nil
}
