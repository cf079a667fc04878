package sshd

import (
	"bytes"
	"errors"
	"io"
	mathrand "math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"

	"deploytools/layers/digest"
	"deploytools/registry"
	"deploytools/registry/keys"
	"deploytools/registry/wire"
)

// stocked is a server with one layer, in the configuration web. Besides the
// agent of all there is one, second, of another scope.
func stocked(t *testing.T, size int) (d *daemon, second ssh.Signer, content []byte) {
	t.Helper()
	second = newKey(t)
	d = newDaemon(t)
	agents := parse(t, registry.Agent, line(d.agent, "host1"), `configs="other" `+line(second, "host2"))
	d.o.Agents = func() *keys.Set { return agents }
	d.listen(t)
	content = make([]byte, size)
	mathrand.NewChaCha8([32]byte{1}).Read(content)
	c, err := sftp.NewClient(d.mustDial(t, "anna", d.operator))
	if err != nil {
		t.Fatal(err)
	}
	f, err := c.Create("layer")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.ReadFrom(bytes.NewReader(content)); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	op := d.mustDial(t, "anna", d.operator)
	for _, command := range []string{"addver -name code -version v1 -hash " + digest.Of(content).String(), "addconf -name web -layer code:v1"} {
		if _, stderr, status, err := executed(t, op, command); status != wire.OK || err != nil {
			t.Fatalf("%s: %v, %v, %s", command, status, err, stderr)
		}
	}
	return d, second, content
}

// fetched opens the lanes of q one after the other, and reads what comes.
func fetched(t *testing.T, c *ssh.Client, q wire.FetchRequest) (content []byte, status wire.Status, err error) {
	t.Helper()
	lanes := make([]ssh.Channel, q.Lanes)
	var ends <-chan *ssh.Request
	for i := range slices.Backward(lanes) { // the first comes last
		q.Lane = i
		ch, requests, err := c.OpenChannel(wire.FetchChannelType, q.Encode())
		if err != nil {
			return nil, 0, err
		}
		defer ch.Close()
		if lanes[i] = ch; i > 0 {
			go ssh.DiscardRequests(requests)
		}
		ends = requests
	}
	for turn := 0; ; turn++ {
		unit := make([]byte, wire.FetchUnit)
		n, err := io.ReadFull(lanes[turn%len(lanes)], unit)
		content = append(content, unit[:n]...)
		if err != nil {
			break
		}
	}
	r, ok := <-ends
	if !ok || r.Type != "exit-status" {
		return content, 0, io.ErrUnexpectedEOF
	}
	return content, wire.Status(r.Payload[3]), nil
}

func TestFetch(t *testing.T) {
	d, second, content := stocked(t, 3<<20+5)
	sum := digest.Of(content)
	c := d.mustDial(t, "deploy-agent", d.agent)
	for i, q := range []wire.FetchRequest{
		{Lanes: 1}, {Lanes: 8}, {Lanes: 3, Offset: 1}, {Lanes: 8, Offset: 2 << 20}, {Lanes: 2, Offset: 3<<20 + 5},
	} {
		q.Digest, q.ID = sum, uint64(i)
		got, status, err := fetched(t, c, q)
		if err != nil || status != wire.OK || !bytes.Equal(got, content[q.Offset:]) {
			t.Errorf("%+v: %d bytes that are not right, %v, %v", q, len(got), status, err)
		}
	}
	if got, status, err := fetched(t, c, wire.FetchRequest{Digest: sum, Lanes: 1, Offset: 3<<20 + 6}); len(got) > 0 || status != wire.Failed || err != nil {
		t.Errorf("from behind the end: %d bytes, %v, %v", len(got), status, err)
	}
	for name, test := range map[string]struct {
		client *ssh.Client
		q      wire.FetchRequest
		reason ssh.RejectionReason
	}{
		"no such layer":       {c, wire.FetchRequest{Digest: digest.Of(nil), Lanes: 1}, ssh.ConnectionFailed},
		"not a request":       {c, wire.FetchRequest{Digest: sum, Lanes: 9}, ssh.Prohibited},
		"of another scope":    {d.mustDial(t, "deploy-agent", second), wire.FetchRequest{Digest: sum, Lanes: 1}, ssh.ConnectionFailed},
		"not for an operator": {d.mustDial(t, "anna", d.operator), wire.FetchRequest{Digest: sum, Lanes: 1}, ssh.UnknownChannelType},
	} {
		_, _, err := fetched(t, test.client, test.q)
		refused, ok := errors.AsType[*ssh.OpenChannelError](err)
		if !ok || refused.Reason != test.reason {
			t.Errorf("%s: %v, want %v", name, err, test.reason)
		}
	}
	if n := d.Server.files.n.Load(); n != 0 {
		t.Errorf("%d files are open", n)
	}
}

// What is not allowed to read a layer is on record, like a read over SFTP.
func TestFetchOutsideOfTheScopeIsOnRecord(t *testing.T) {
	d, second, content := stocked(t, 10)
	fetched(t, d.mustDial(t, "deploy-agent", second), wire.FetchRequest{Digest: digest.Of(content), Lanes: 1})
	d.stop()
	if err := <-d.ended; err != nil { // all records are written then
		t.Fatal(err)
	}
	d.ended <- nil
	stdout := &strings.Builder{}
	for entry, err := range d.o.Registry.Audit(t.Context(), registry.AuditFilter{}) {
		if err != nil {
			t.Fatal(err)
		}
		stdout.WriteString(strings.Join(entry.Command, " ") + "\n")
	}
	if !strings.Contains(stdout.String(), "fetch "+digest.Of(content).String()) {
		t.Errorf("on record:\n%s", stdout)
	}
}

// lane0 stands for a channel: what it is asked for is noted.
type lane0 struct {
	ssh.Channel
	closed bool
}

func (l *lane0) Close() error { l.closed = true; return nil }

// A lane that contradicts the others is not let in, and one that goes takes them
// along: nobody waits for ever, and nothing stays open.
func TestLanesThatDoNotFit(t *testing.T) {
	q := wire.FetchRequest{Digest: digest.Of(nil), ID: 5, Lanes: 3}
	var all fetches
	first, blob := &lane0{}, &openBlob{}
	f, complete := all.join(q, first, blob)
	if f == nil || complete {
		t.Fatalf("join of the first = %v, %t", f, complete)
	}
	for name, change := range map[string]func(*wire.FetchRequest){
		"the same again": func(*wire.FetchRequest) {},
		"another offset": func(q *wire.FetchRequest) { q.Lane, q.Offset = 1, 7 },
		"another layer":  func(q *wire.FetchRequest) { q.Lane, q.Digest = 1, digest.Of([]byte("x")) },
		"other lanes":    func(q *wire.FetchRequest) { q.Lane, q.Lanes = 1, 2 },
	} {
		q := q
		change(&q)
		if g, _ := all.join(q, &lane0{}, nil); g != nil {
			t.Errorf("%s: was let in", name)
		}
	}
	q.Lane = 2
	second := &lane0{}
	all.join(q, second, nil)
	all.leave(f)
	all.leave(f)
	if !first.closed || !second.closed || blob.closed != 1 || len(all.waiting) != 0 {
		t.Errorf("lanes closed %t, %t; layer closed %d times; %d wait", first.closed, second.closed, blob.closed, len(all.waiting))
	}
}

type openBlob struct {
	registry.Blob
	closed int
}

func (b *openBlob) Close() error { b.closed++; return nil }
