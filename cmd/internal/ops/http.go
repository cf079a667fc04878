package ops

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"time"
)

// Pages is what a daemon shows about itself over HTTP.
type Pages struct {
	// Ready returns nil if the daemon can do all of its work now, and else why
	// not. Safe for concurrent use.
	Ready   func(context.Context) error
	Version any          // as JSON
	Metrics http.Handler // what Prometheus reads
}

// ErrExposed says that an address could be reached from other machines.
var ErrExposed = errors.New("http API has no authorization and should only be exposed on localhost")

// CheckLocal says whether Listen would take the address, without opening it.
func CheckLocal(addr string) error {
	if isSocket(addr) {
		return nil
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("%q: should be localhost:port or the path of a socket", addr)
	}
	if ip, err := netip.ParseAddr(host); host != "localhost" && (err != nil || !ip.Unmap().IsLoopback()) {
		return ErrExposed
	}
	return nil
}

// isSocket tells a path from host:port.
func isSocket(addr string) bool { return strings.HasPrefix(addr, "/") }

// Listen opens an address that only this machine reaches: one of the loopback
// interface, or a socket that the daemon's group may use, too. A socket that
// nobody listens on any more is replaced.
func Listen(ctx context.Context, addr string) (net.Listener, error) {
	if err := CheckLocal(addr); err != nil {
		return nil, err
	}
	if isSocket(addr) {
		return listenSocket(ctx, addr)
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	// The name localhost means what the machine says.
	if a, ok := l.Addr().(*net.TCPAddr); !ok || !a.IP.IsLoopback() {
		l.Close()
		return nil, ErrExposed
	}
	return l, nil
}

func listenSocket(ctx context.Context, path string) (net.Listener, error) {
	info, err := os.Lstat(path)
	if err == nil && info.Mode().Type() == os.ModeSocket {
		if c, err := new(net.Dialer).DialContext(ctx, "unix", path); err == nil {
			c.Close()
			return nil, fmt.Errorf("%s: somebody listens there", path)
		}
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	l, err := new(net.ListenConfig).Listen(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o660); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// Serve answers requests to l until ctx ends, and closes it. Requests that run
// then have a second to end.
func Serve(ctx context.Context, l net.Listener, p Pages) error {
	s := &http.Server{
		Handler: p.handler(), ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 5 * time.Second, WriteTimeout: 10 * time.Second,
		IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
	}
	done := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(done)
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if s.Shutdown(last) != nil {
			s.Close()
		}
	})
	err := s.Serve(l)
	if !stop() {
		<-done
		return nil
	}
	return err
}

func (p Pages) handler() http.Handler {
	text := func(w http.ResponseWriter, status int, line string) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.WriteHeader(status)
		io.WriteString(w, line+"\n")
	}
	m := http.NewServeMux()
	m.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { text(w, http.StatusOK, "ok") })
	m.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		if err := p.Ready(r.Context()); err != nil {
			text(w, http.StatusServiceUnavailable, err.Error())
			return
		}
		text(w, http.StatusOK, "ready")
	})
	m.HandleFunc("GET /version", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(p.Version)
	})
	m.Handle("GET /metrics", p.Metrics)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		m.ServeHTTP(w, r)
	})
}
