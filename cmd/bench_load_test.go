package cmd_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"deploytools/layers/digest"
	"deploytools/registry/client"
)

// loadAgents names the variable that says how many agents there are; without it
// there are 100. Each polls loadPolls times without a pause, which an agent with
// the default of -poll does in about an hour.
const (
	loadAgents = "DEPLOY_TEST_AGENTS"
	loadPolls  = 100
	loadBytes  = 1 << 20 // of the layer that each fetches
)

// BenchmarkLoad has many agents poll one registry and fetch one layer from it,
// all at the same time, and reports rates and how long a poll and a fetch take:
// the median, and what 99 of 100 stay below. An error of any agent ends it.
func BenchmarkLoad(b *testing.B) {
	n := 100
	if text := os.Getenv(loadAgents); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil || n < 1 {
			b.Fatalf("%s=%s: should be a number of agents", loadAgents, text)
		}
	}
	y := newRegistryYard(b)
	y.run("go", "build", "-trimpath", "-o", y.path("bin")+"/", "./deployctl")
	file, d := y.layerOf("layer", loadBytes)
	y.run(y.path("bin/deployctl"), "addver", "-name", "web", "-version", "1", "-file", file)
	y.run(y.path("bin/deployctl"), "addconf", "-name", "web", "-layer", "web:1")
	began := time.Now()
	clients := y.crowd(n)
	b.ReportMetric(float64(n)/time.Since(began).Seconds(), "logins/s")
	defer func() {
		for _, c := range clients {
			c.Close()
		}
	}()

	took, all := eachOf(b, clients, loadPolls, func(ctx context.Context, c *client.Client) error {
		state, err := c.Poll(ctx, "web")
		if err == nil && state.Revision != 1 {
			err = fmt.Errorf("poll is answered with revision %d", state.Revision)
		}
		return err
	})
	b.ReportMetric(float64(len(took))/all.Seconds(), "polls/s")
	reportTimes(b, "poll", took)

	took, all = eachOf(b, clients, 1, func(ctx context.Context, c *client.Client) error {
		h := digest.NewWriter()
		err := c.Fetch(ctx, d, 0, h)
		if err == nil && h.Digest() != d {
			err = fmt.Errorf("fetched %s", h.Digest())
		}
		return err
	})
	b.ReportMetric(float64(n)*loadBytes/(1<<20)/all.Seconds(), "MiB/s")
	reportTimes(b, "fetch", took)
	b.ReportMetric(0, "ns/op")
}

// eachOf has all clients do something so many times, each one after the other,
// and returns how long each time took, sorted, and how long all together did.
func eachOf(b *testing.B, clients []*client.Client, times int, do func(context.Context, *client.Client) error) (took []time.Duration, all time.Duration) {
	b.Helper()
	var mu sync.Mutex
	var wg sync.WaitGroup
	began := time.Now()
	for _, c := range clients {
		wg.Go(func() {
			mine := make([]time.Duration, times)
			for i := range mine {
				start := time.Now()
				if err := do(b.Context(), c); err != nil {
					b.Error(err)
					return
				}
				mine[i] = time.Since(start)
			}
			mu.Lock()
			defer mu.Unlock()
			took = append(took, mine...)
		})
	}
	wg.Wait()
	all = time.Since(began)
	if b.Failed() {
		b.FailNow()
	}
	slices.Sort(took)
	return took, all
}

func reportTimes(b *testing.B, what string, took []time.Duration) {
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, what+"-p50-ms")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, what+"-p99-ms")
}
