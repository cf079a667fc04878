package cmd_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"deploytools/registry/client"
)

// idleAgents is how many agents are connected in the end, and idleStrangers how
// many of them connect at a time: fewer than the registry lets one address have.
const (
	idleAgents    = 5000
	idleStrangers = 8
)

// BenchmarkIdleAgents holds connections of agents that poll once and then wait,
// and reports what the registry, a process of its own, takes for them: resident
// memory, with what its collector has not given back yet.
func BenchmarkIdleAgents(b *testing.B) {
	for _, n := range []int{1, idleAgents} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			var files unix.Rlimit
			if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil || int(files.Cur) < 3*n {
				b.Fatalf("%d file descriptors are too few: %v", files.Cur, err)
			}
			y := newRegistryYard(b)
			warm := y.client() // what the first one costs everybody pays once
			y.pollOnce(warm)
			before := y.memory()
			began := time.Now()
			clients := y.crowd(n)
			took := time.Since(began)
			after := y.memory()
			b.ReportMetric(float64(before)/1024, "none-MiB")
			b.ReportMetric(float64(after)/1024, "all-MiB")
			b.ReportMetric(float64(after-before)/float64(n), "KiB/agent")
			b.ReportMetric(float64(n)/took.Seconds(), "logins/s")
			b.ReportMetric(0, "ns/op")
			for _, c := range append(clients, warm) {
				c.Close()
			}
		})
	}
}

// newRegistryYard is a yard without its peer.
func newRegistryYard(b *testing.B) *yard {
	b.Helper()
	y := &yard{b: b, dir: b.TempDir()}
	y.run("go", "build", "-trimpath", "-o", y.path("bin")+"/", "./deploy-registry")
	for _, name := range []string{"operator", "agent"} {
		y.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", y.path(name))
	}
	y.startRegistry()
	return y
}

func (y *yard) pollOnce(c *client.Client) {
	y.b.Helper()
	if _, err := c.Poll(context.Background(), "web"); err != nil && !strings.Contains(err.Error(), "not found") {
		y.b.Error(err)
	}
}

// crowd connects n agents, and has each of them poll.
func (y *yard) crowd(n int) []*client.Client {
	y.b.Helper()
	clients := make([]*client.Client, n)
	next := make(chan int)
	var connecting sync.WaitGroup
	for range idleStrangers {
		connecting.Go(func() {
			for i := range next {
				clients[i] = y.client()
				y.pollOnce(clients[i])
			}
		})
	}
	for i := range clients {
		next <- i
	}
	close(next)
	connecting.Wait()
	return clients
}

// memory returns what the registry has in memory, in KiB.
func (y *yard) memory() int {
	y.b.Helper()
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", y.pid))
	if err != nil {
		y.b.Fatal(err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if rest, ok := strings.CutPrefix(lines.Text(), "VmRSS:"); ok {
			kib, err := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(rest), " kB"))
			if err != nil {
				y.b.Fatal(err)
			}
			return kib
		}
	}
	y.b.Fatal("no resident memory is shown")
	return 0
}
