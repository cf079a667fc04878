package ops

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"deploytools/registry/console"
	"deploytools/registry/wire"
)

// Version is what a program shows of itself.
func Version(program string, build wire.Build) any {
	return struct {
		Schema  console.Schema `json:"schema"`
		Program string         `json:"program"`
		wire.Build
	}{Program: program, Build: build}
}

// Metrics shows Prometheus what c collects, along with the process itself.
func Metrics(c prometheus.Collector) http.Handler {
	r := prometheus.NewRegistry()
	r.MustRegister(c, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return promhttp.HandlerFor(r, promhttp.HandlerOpts{ErrorHandling: promhttp.HTTPErrorOnError, MaxRequestsInFlight: 4, Timeout: 10 * time.Second})
}

// Show serves the pages on an address that Listen takes, until close is called:
// what comes to its end after ctx can still be watched. Without an address it
// does nothing.
func Show(ctx context.Context, addr string, p Pages, log *slog.Logger) (close func(), err error) {
	if addr == "" {
		return func() {}, nil
	}
	l, err := Listen(ctx, addr)
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %s: %w", addr, err)
	}
	log.Info("listening", "remote", "http://"+l.Addr().String())
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	var served sync.WaitGroup
	served.Go(func() {
		if err := Serve(serving, l, p); err != nil {
			log.Error("pages not shown any more", "error", err)
		}
	})
	return func() {
		stop()
		served.Wait()
	}, nil
}
