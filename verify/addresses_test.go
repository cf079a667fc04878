package verify

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"deploytools/verify/spec"
)

// names makes a name server of the resolver's for this test, which knows the
// addresses of "pool.example." and of no other name.
func names(t *testing.T, addresses ...string) {
	t.Helper()
	pool, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for b := make([]byte, 1500); ; {
			n, from, err := pool.ReadFrom(b)
			if err != nil {
				return
			}
			pool.WriteTo(answer(b[:n], addresses), from)
		}
	}()
	before := net.DefaultResolver
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "udp", pool.LocalAddr().String())
	}}
	t.Cleanup(func() {
		net.DefaultResolver = before
		pool.Close()
	})
}

// answer is the response to one question of DNS, RFC 1035 section 4.1.
func answer(query []byte, addresses []string) []byte {
	name := "\x04pool\x07example\x00"
	end := 12 + strings.IndexByte(string(query[12:]), 0) + 5
	reply := slices.Clone(query[:end])
	reply[2], reply[3] = 0x85, 0x80 // an answer, with authority
	clear(reply[6:12])
	if string(query[12:end-4]) != name {
		reply[3] |= 3 // no such name
		return reply
	}
	kind := binary.BigEndian.Uint16(reply[end-4:])
	for _, a := range addresses {
		ip := netip.MustParseAddr(a)
		if ip.Is4() != (kind == 1) || ip.Is6() != (kind == 28) {
			continue
		}
		reply[7]++
		reply = append(reply, 0xc0, 12, 0, byte(kind), 0, 1, 0, 0, 0, 60, 0, byte(ip.BitLen()/8))
		reply = append(reply, ip.AsSlice()...)
	}
	return reply
}

// serveAll serves TLS on one port of all these addresses, with the certificate
// of each; nothing listens at those that have none.
func serveAll(t *testing.T, certs map[string]*tls.Certificate) (addr string) {
	t.Helper()
	for range 20 {
		if port, ok := tryServeAll(t, certs); ok {
			return "pool.example.:" + port
		}
	}
	t.Fatal("no port is free at all addresses")
	return ""
}

func tryServeAll(t *testing.T, certs map[string]*tls.Certificate) (port string, ok bool) {
	t.Helper()
	port = "0"
	open := map[net.Listener]*tls.Certificate{}
	for ip, cert := range certs {
		if cert == nil {
			continue
		}
		l, err := net.Listen("tcp", net.JoinHostPort(ip, port))
		if err != nil && port == "0" {
			t.Fatal(err)
		}
		if err != nil { // somebody else has the port there
			for l := range open {
				l.Close()
			}
			return "", false
		}
		_, port, _ = net.SplitHostPort(l.Addr().String())
		open[l] = cert
	}
	for l, cert := range open {
		t.Cleanup(func() { l.Close() })
		go acceptTLS(l, config(*cert))
	}
	return port, true
}

func acceptTLS(l net.Listener, config *tls.Config) {
	acceptAll(l, func(c net.Conn) { tls.Server(c, config).Handshake() })
}

// V-07: one address was looked at, and the others went on serving what they did.
func TestV07EveryAddressOfANameIsLookedAt(t *testing.T) {
	fresh, stale := newCert(t, "fresh", ecKey(t)), newCert(t, "stale", ecKey(t))
	const four, two, six = "127.0.0.1", "127.0.0.2", "::1"
	names(t, two, four, six)
	for what, row := range map[string]struct {
		serves             map[string]*tls.Certificate
		network, addresses string
		kind               Kind
		failing            []string
		detail             string // or warning
	}{
		"all fresh":                 {map[string]*tls.Certificate{four: &fresh, two: &fresh, six: &fresh}, "", "", "", nil, ""},
		"IPv6 stale":                {map[string]*tls.Certificate{four: &fresh, two: &fresh, six: &stale}, "", "", WrongCert, []string{six}, "1 of 3 addresses did not pass: [::1]:"},
		"IPv6 stale, not asked":     {map[string]*tls.Certificate{four: &fresh, two: &fresh, six: &stale}, "tcp4", "", "", nil, ""},
		"IPv6 stale, only that":     {map[string]*tls.Certificate{four: &fresh, two: &fresh, six: &stale}, "tcp6", "", WrongCert, nil, "serves"},
		"one away":                  {map[string]*tls.Certificate{four: &fresh, two: &fresh, six: nil}, "", "", "", nil, "no connection, which may be: [::1]:"},
		"one away, all wanted":      {map[string]*tls.Certificate{four: &fresh, two: &fresh, six: nil}, "", "all", Dial, []string{six}, "refused"},
		"one away, two wanted":      {map[string]*tls.Certificate{four: &fresh, two: &fresh, six: nil}, "", "2", "", nil, "1 of 3 addresses did not pass: [::1]:"},
		"one stale, two wanted":     {map[string]*tls.Certificate{four: &fresh, two: &fresh, six: &stale}, "", "2", "", nil, "1 of 3 addresses did not pass: [::1]:"},
		"two stale, two wanted":     {map[string]*tls.Certificate{four: &fresh, two: &stale, six: &stale}, "", "2", WrongCert, []string{two, six}, "2 of 3 addresses"},
		"four wanted of three":      {map[string]*tls.Certificate{four: &fresh, two: &fresh, six: &fresh}, "", "4", Dial, nil, "the name has 3 addresses, want 4"},
		"two wanted of one":         {map[string]*tls.Certificate{four: &fresh, two: &fresh, six: &fresh}, "tcp6", "2", Dial, nil, "the name has 1 addresses, want 2"},
		"stale and away":            {map[string]*tls.Certificate{four: nil, two: &stale, six: nil}, "", "", WrongCert, []string{two, four, six}, "3 of 3"},
		"an address in an own way":  {map[string]*tls.Certificate{four: nil, two: nil, six: &stale}, "", "", WrongCert, []string{six, four, two}, "3 of 3"},
		"the order is always equal": {map[string]*tls.Certificate{four: &stale, two: &stale, six: &stale}, "", "all", WrongCert, []string{four, two, six}, "3 of 3"},
	} {
		addr := serveAll(t, row.serves)
		c := spec.Check{Type: spec.TLS, Addr: addr, Network: row.network, Addresses: row.addresses, Fingerprint: Fingerprint(fresh.Leaf)}
		f := lookAt(t, c, Vars{})
		_, port, _ := net.SplitHostPort(addr)
		var failing []string
		for _, ip := range row.failing {
			failing = append(failing, net.JoinHostPort(ip, port))
		}
		if f.Kind != row.kind || !strings.Contains(f.Detail+f.Warning, row.detail) || !slices.Equal(f.Addresses, failing) {
			t.Errorf("%s: %+v, want kind %q at %q with %s", what, f, row.kind, failing, row.detail)
		}
	}
}

func TestNoAddressIsADialFailure(t *testing.T) {
	names(t, "127.0.0.1", "127.0.0.2")
	cert := newCert(t, "x", ecKey(t))
	addr := serveAll(t, map[string]*tls.Certificate{"127.0.0.3": &cert})
	f := lookAt(t, spec.Check{Type: spec.TCP, Addr: addr}, Vars{})
	if f.Kind != Dial || len(f.Addresses) != 2 {
		t.Errorf("nobody listens: %+v", f)
	}
	if f := lookAt(t, spec.Check{Type: spec.TCP, Addr: addr, Network: "tcp6"}, Vars{}); f.Kind != Dial {
		t.Errorf("no such address: %+v", f)
	}
	if f := lookAt(t, spec.Check{Type: spec.TCP, Addr: "nowhere.example:1"}, Vars{}); f.Kind != Dial || !strings.Contains(f.Detail, "lookup nowhere.example") {
		t.Errorf("unknown name: %+v", f)
	}
	var many []string
	for i := range spec.MaxAddresses + 1 {
		many = append(many, fmt.Sprintf("127.0.1.%d", i))
	}
	names(t, many...)
	if f := lookAt(t, spec.Check{Type: spec.TCP, Addr: addr}, Vars{}); f.Kind != Dial || !strings.Contains(f.Detail, "33 addresses: want 1 to 32") {
		t.Errorf("many addresses: %+v", f)
	}
}

// http and tcp looks see all addresses too.
func TestAddressesOfOtherLooks(t *testing.T) {
	names(t, "127.0.0.1", "::1")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go acceptAll(l, func(c net.Conn) {
		if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}
	})
	_, port, _ := net.SplitHostPort(l.Addr().String())
	for _, c := range []spec.Check{
		{Type: spec.TCP, Addr: "pool.example.:" + port, Send: `GET / HTTP/1.0\r\n\r\n`, Expect: "HTTP"},
		{Type: spec.HTTP, URL: "http://pool.example.:" + port + "/", Body: "ok"},
	} {
		if f := lookAt(t, c, Vars{}); !f.OK {
			t.Errorf("%s: %+v", c, f)
		}
		c.Addresses = "all"
		if f := lookAt(t, c, Vars{}); f.Kind != Dial || !slices.Equal(f.Addresses, []string{"[::1]:" + port}) {
			t.Errorf("%s: %+v, want a failure at ::1", c, f)
		}
	}
}

// An address that drops what is sent to it held the look until its timeout,
// though others were there.
func TestAnAddressThatDoesNotAnswerIsNotWaitedFor(t *testing.T) {
	answers, silent := serve(t, func(net.Conn) {}), fullBacklog(t)
	c := spec.Check{Type: spec.TCP, Timeout: 20 * time.Second}
	places := []*place{{network: "tcp", addr: silent, patience: 50 * time.Millisecond}, {network: "tcp", addr: answers, patience: time.Second}}
	began := time.Now()
	f := lookPlaces(t.Context(), c, places, func(ctx context.Context, connect func() (net.Conn, error)) Finding {
		conn, err := connect()
		if err != nil {
			return lost(ctx, Dial, err)
		}
		conn.Close()
		return Finding{}
	})
	if f.Kind != "" || time.Since(began) > 10*time.Second || !strings.Contains(f.Detail, silent) {
		t.Errorf("%+v after %v", f, time.Since(began))
	}
}

func TestPatienceIsForAddressesThatMayBeAway(t *testing.T) {
	names(t, "127.0.0.1", "127.0.0.2")
	for what, row := range map[string]struct {
		addr, addresses string
		want            time.Duration
	}{
		"each that answers": {"pool.example.:1", "", maxPatience},
		"all of them":       {"pool.example.:1", spec.AllAddresses, 0},
		"an address":        {"127.0.0.1:1", "", 0},
	} {
		places, err := resolve(t.Context(), spec.Check{Addresses: row.addresses}, row.addr)
		if err != nil || len(places) == 0 || places[0].patience != row.want {
			t.Errorf("%s: resolve = %+v, %v, want patience %v", what, places, err, row.want)
		}
	}
}

func TestFailingAtAnotherAddressIsWorse(t *testing.T) {
	report := func(addresses ...string) Report {
		return Report{Findings: []Finding{{Check: "a", Type: spec.TLS, Target: "t", Kind: WrongCert, Addresses: addresses}}}
	}
	for what, row := range map[string]struct {
		before, now Report
		worse       bool
	}{
		"the same":   {report("a", "b"), report("a", "b"), false},
		"fewer":      {report("a", "b"), report("b"), false},
		"another":    {report("a"), report("b"), true},
		"more":       {report("a"), report("a", "b"), true},
		"had only 1": {report(), report("a"), false},
	} {
		if got := len(Worse(row.before, row.now)) > 0; got != row.worse {
			t.Errorf("%s: worse = %v, want %v", what, got, row.worse)
		}
	}
}

// V-05: a pool where one of three still serves the old certificate passes at
// the first look as often as not.
func TestV05APoolWhereOneLagsNeedsSuccessesInARow(t *testing.T) {
	fresh, stale := newCert(t, "fresh", ecKey(t)), newCert(t, "stale", ecKey(t))
	turn := make(chan int, 1)
	turn <- 0
	addr := serveTLS(t, &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		n := <-turn
		turn <- n + 1
		if n%3 == 2 {
			return &stale, nil
		}
		return &fresh, nil
	}})
	c := spec.Check{Type: spec.TLS, Addr: addr, Fingerprint: Fingerprint(fresh.Leaf)}
	s := spec.Spec{Checks: []spec.Check{c}, Total: 3500 * time.Millisecond}
	if r := Run(t.Context(), s, Vars{}); !r.Verified {
		t.Errorf("one look: %+v", r)
	}
	<-turn
	turn <- 0
	s.Successes = 3
	if r := Run(t.Context(), s, Vars{}); r.OK || !strings.Contains(r.Findings[0].String(), string(WrongCert)) {
		t.Errorf("three looks in a row: %+v", r)
	}
}
