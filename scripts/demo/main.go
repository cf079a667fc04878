// Demo is the small HTTPS server that scripts/demo.sh deploys, and the few
// helpers that the script needs so that it depends on no other program.
//
//	demo serve ROOT ADDR ID READY   serve the settings of ROOT until TERM
//	demo cert DIR NAME              make DIR/NAME.pem and DIR/NAME.key
//	demo port                       print a free port of 127.0.0.1
//	demo get URL                    print what is served there, any certificate
//	demo poll URL BODIES            get URL until TERM, then tell what was seen
package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	commands := map[string]struct {
		run  func(args []string) error
		args int
	}{"serve": {serve, 4}, "cert": {cert, 2}, "port": {port, 0}, "get": {get, 1}, "poll": {poll, 2}}
	if len(os.Args) < 2 || commands[os.Args[1]].run == nil || len(os.Args)-2 != commands[os.Args[1]].args {
		fmt.Fprintln(os.Stderr, "usage: demo serve|cert|port|get|poll, see the source")
		os.Exit(2)
	}
	if err := commands[os.Args[1]].run(os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

// settings is etc/settings.json of a root.
type settings struct {
	Greeting    string // what / answers
	Certificate string // below the root, without .pem; "" is etc/site
}

func serve(args []string) error {
	root, addr, id, ready := args[0], args[1], args[2], args[3]
	text, err := os.ReadFile(filepath.Join(root, "etc/settings.json"))
	if err != nil {
		return err
	}
	s := settings{Certificate: "etc/site"}
	if err := json.Unmarshal(text, &s); err != nil {
		return err
	}
	pair, err := tls.LoadX509KeyPair(filepath.Join(root, s.Certificate+".pem"), filepath.Join(root, s.Certificate+".key"))
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, s.Greeting) })
	mux.HandleFunc("GET /version", func(w http.ResponseWriter, _ *http.Request) {
		json.NewEncoder(w).Encode(map[string]string{"id": id})
	})
	l, err := tls.Listen("tcp", addr, &tls.Config{Certificates: []tls.Certificate{pair}})
	if err != nil {
		return err
	}
	// The hook waits for this file: from now on connections are accepted.
	if err := os.WriteFile(ready, []byte(id+"\n"), 0o644); err != nil {
		return err
	}
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	go func() {
		<-stop
		server.Close()
	}()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func cert(args []string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		Subject:      pkix.Name{CommonName: args[1] + ".example"},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	base := filepath.Join(args[0], args[1])
	return errors.Join(
		os.WriteFile(base+".pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644),
		os.WriteFile(base+".key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), 0o600),
	)
}

func port([]string) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer l.Close()
	_, err = fmt.Println(l.Addr().(*net.TCPAddr).Port)
	return err
}

// client makes a new connection for each request and takes any certificate:
// what is of interest is the content.
var client = &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
	DisableKeepAlives: true,
	TLSClientConfig:   &tls.Config{InsecureSkipVerify: true},
}}

func fetch(url string) (string, error) {
	r, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err == nil && r.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %s", r.Status)
	}
	return strings.TrimSpace(string(body)), err
}

func get(args []string) error {
	body, err := fetch(args[0])
	if err != nil {
		return err
	}
	_, err = fmt.Println(body)
	return err
}

// poll asks 50 times a second and counts. It fails when it ever gets something
// that is not a line of the file BODIES, or is not connected for another reason
// than that nobody listens or the connection is reset or closed.
func poll(args []string) error {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	seen := map[string]int{}
	refused := 0
	for {
		body, err := fetch(args[0])
		switch {
		case err == nil:
			seen[body]++
		case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ECONNRESET), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			refused++
		default:
			return fmt.Errorf("poller: %w", err)
		}
		select {
		case <-stop:
			return tell(seen, refused, args[1])
		case <-tick.C:
		}
	}
}

func tell(seen map[string]int, refused int, bodies string) error {
	text, err := os.ReadFile(bodies)
	if err != nil {
		return err
	}
	allowed := strings.Split(strings.TrimSpace(string(text)), "\n")
	total := refused
	for _, body := range allowed {
		fmt.Printf("%6d times  %s\n", seen[body], body)
		total += seen[body]
		delete(seen, body)
	}
	fmt.Printf("%6d times  refused or reset, while the server itself restarted\n%6d requests in all\n", refused, total)
	if len(seen) > 0 {
		return fmt.Errorf("got what is neither old nor new content: %q", slices.Collect(maps.Keys(seen)))
	}
	return nil
}
