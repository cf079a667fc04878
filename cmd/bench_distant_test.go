package cmd_test

import (
	"fmt"
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
	far := line{oneWay: oneWay}
	y.registry, y.sshd = far.to(b, y.registry), far.to(b, y.sshd)
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
