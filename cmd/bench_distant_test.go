package cmd_test

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"testing"
	"time"
)

const (
	// oneWay is half of the round trip to a distant registry.
	oneWay = 20 * time.Millisecond
	// distantBytes is less than benchBytes: most of the time is waiting.
	distantBytes = 32 << 20
)

// BenchmarkDistant moves a layer over a round trip of 40 ms: by deployctl up to
// the version, and as the agent fetches. The peer is OpenSSH's client and server.
func BenchmarkDistant(b *testing.B) {
	y := newYard(b)
	near := y.registry
	y.registry, y.sshd = delayed(b, y.registry), delayed(b, y.sshd)
	var up, down, peerUp, peerDown []time.Duration
	for i := range benchRounds {
		file, d := y.layerOf(fmt.Sprint("layer", i), distantBytes)
		there, back := y.path("there"), y.path("back")
		peerUp = append(peerUp, y.sftp(y.sshd, "root", "operator", fmt.Sprintf("put %s %s", file, there)))
		peerDown = append(peerDown, y.sftp(y.sshd, "root", "operator", fmt.Sprintf("get %s %s", there, back)))
		up = append(up, timed(func() {
			y.run(y.path("bin/deployctl"), "addver", "-name", "bench", "-version", strconv.Itoa(i), "-file", file)
		}))
		down = append(down, timed(func() { y.fetch(d, back) }))
		os.Remove(file)
	}
	y.registry = near
	report(b, up, peerUp, "deployctl-x-sftp")
	report(b, down, peerDown, "agent-x-sftp")
	b.ReportMetric(0, "ns/op")
}

// delayed returns the address of a way to addr on which everything takes oneWay
// longer, in both directions. It ends with the benchmark.
func delayed(b *testing.B, addr string) string {
	b.Helper()
	return proxied(b, addr, delay, delay)
}

// proxied returns the address of a way to addr: there copies what goes there,
// and back what comes back. It ends with the benchmark.
func proxied(b *testing.B, addr string, there, back func(to, from net.Conn)) string {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { l.Close() })
	go func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", addr)
			if err != nil {
				near.Close()
				continue
			}
			go there(far, near)
			go back(near, far)
		}
	}()
	return l.Addr().String()
}

// delay copies with a delay, whatever the amount that is under way.
func delay(to, from net.Conn) {
	type piece struct {
		due  time.Time
		data []byte
	}
	under := make(chan piece, 1<<16)
	go func() {
		defer close(under)
		for {
			buf := make([]byte, 64<<10)
			n, err := from.Read(buf)
			if n > 0 {
				under <- piece{time.Now().Add(oneWay), buf[:n]}
			}
			if err != nil {
				return
			}
		}
	}()
	for p := range under {
		time.Sleep(time.Until(p.due))
		if _, err := to.Write(p.data); err != nil {
			break
		}
	}
	to.Close()
	from.Close() // ends the reader
	for range under {
	}
}
