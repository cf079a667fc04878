package verify

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"deploytools/verify/spec"
)

// turn is one step of the other side of a conversation: it waits for a line that
// begins so, if any, and says something.
type turn struct{ hear, say string }

// sslRequest and startTLSRequest are what is asked for without lines, as the
// documents of the protocols have them, byte by byte.
const (
	sslRequest      = "\x00\x00\x00\x08\x04\xd2\x16\x2f"
	startTLSRequest = "\x30\x1d\x02\x01\x01\x77\x18\x80\x161.3.6.1.4.1.1466.20037"
	ldapSuccess     = "\x30\x0c\x02\x01\x01\x78\x07\x0a\x01\x00\x04\x00\x04\x00"
)

// good has one conversation for each protocol that ends with consent.
var good = map[string][]turn{
	"smtp": {{"", "220-mail.example.org\r\n220 ESMTP\r\n"}, {"EHLO [127.0.0.1]\r\n", "250-mail.example.org\r\n250-SIZE 10\r\n250-StartTLS\r\n250 HELP\r\n"},
		{"STARTTLS\r\n", "220 2.0.0 Ready\r\n"}},
	"imap":     {{"", "* OK [CAPABILITY IMAP4rev1 STARTTLS] ready\r\n"}, {"a STARTTLS\r\n", "* CAPABILITY IMAP4rev1\r\na OK Begin\r\n"}},
	"pop3":     {{"", "+OK ready <1@x>\r\n"}, {"STLS\r\n", "+OK\r\n"}},
	"sieve":    {{"", "\"IMPLEMENTATION\" \"x\"\r\n\"StartTLS\"\r\n\"SIEVE\" \"a\"\r\nOK \"ready\"\r\n"}, {"STARTTLS\r\n", "ok\r\n"}},
	"ftp":      {{"", "220-Welcome\r\n to all\r\n220 ready\r\n"}, {"AUTH TLS\r\n", "234 Go\r\n"}},
	"ldap":     {{startTLSRequest, ldapSuccess}},
	"postgres": {{sslRequest, "S"}},
}

// serveAfter speaks in turns, and then TLS with cert.
func serveAfter(t *testing.T, turns []turn, cert tls.Certificate) (addr string) {
	t.Helper()
	return serve(t, func(c net.Conn) {
		r := bufio.NewReader(c)
		for _, turn := range turns {
			heard := make([]byte, len(turn.hear))
			if _, err := io.ReadFull(r, heard); err != nil {
				return
			}
			if string(heard) != turn.hear {
				t.Errorf("heard %q, want %q", heard, turn.hear)
				return
			}
			io.WriteString(c, turn.say)
		}
		s := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{cert}})
		s.Handshake()
		s.Read(make([]byte, 1))
	})
}

// V-03: TLS was spoken at once to a mail port, whose greeting was taken for a
// broken handshake: each deployment of a certificate for mail went back.
func TestV03TLSIsAskedForInTheWordsOfTheProtocol(t *testing.T) {
	cert := newCert(t, "mail", ecKey(t))
	for _, protocol := range spec.StartTLSProtocols {
		addr := serveAfter(t, good[protocol], cert)
		c := spec.Check{Type: spec.TLS, Addr: addr, StartTLS: protocol, Fingerprint: Fingerprint(cert.Leaf)}
		if f := lookAt(t, c, Vars{}); !f.OK || f.Target != addr+" ("+protocol+")" {
			t.Errorf("%s: %+v", protocol, f)
		}
		c.Fingerprint = strings.Repeat("ab", 32)
		if f := lookAt(t, c, Vars{}); f.Kind != WrongCert {
			t.Errorf("%s, another certificate: %+v", protocol, f)
		}
	}
	if len(good) != len(spec.StartTLSProtocols) || len(startTLS) != len(spec.StartTLSProtocols) {
		t.Errorf("%d conversations, %d ways to ask, %d protocols", len(good), len(startTLS), len(spec.StartTLSProtocols))
	}
}

func TestARefusalIsToldInItsWords(t *testing.T) {
	for _, row := range []struct {
		protocol string
		turns    []turn
		detail   string
	}{
		{"smtp", []turn{{"", "554 go away\r\n"}}, `connecting is answered with "554 go away", want 220`},
		{"smtp", []turn{{"", "220 x\r\n"}, {"EHLO", "250-x\r\n250-XSTARTTLS\r\n250 SIZE\r\n"}}, "STARTTLS is not offered"},
		{"smtp", []turn{{"", "220 x\r\n"}, {"EHLO", "250 STARTTLS\r\n"}}, "STARTTLS is not offered"},
		{"smtp", []turn{{"", "220 x\r\n"}, {"EHLO [127.0.0.1]\r\n", "250-x\r\n250 STARTTLS\r\n"}, {"STARTTLS", "454 4.7.0 TLS\x1b not available\r\n"}}, `STARTTLS is answered with "454 4.7.0 TLS\x1b not available", want 220`},
		{"smtp", []turn{{"", "2200 x\r\n"}}, `answered with "2200 x"`},
		{"smtp", []turn{{"", "220-x\r\n"}}, "the connection was closed"},
		{"imap", []turn{{"", "* PREAUTH welcome\r\n"}}, `greets with "* PREAUTH welcome"`},
		{"imap", []turn{{"", "* BYE busy\r\n"}}, `greets with "* BYE busy"`},
		{"imap", []turn{{"", "* OKAY\r\n"}}, `greets with "* OKAY"`},
		{"imap", []turn{{"", "* OK\r\n"}, {"a STARTTLS", "* x\r\na BAD no\r\n"}}, `STARTTLS is answered with "a BAD no", want OK`},
		{"imap", []turn{{"", "* OK\r\n"}, {"a STARTTLS", "b OK no\r\n"}}, `STARTTLS is answered with "b OK no"`},
		{"pop3", []turn{{"", "-ERR full\r\n"}}, `connecting is answered with "-ERR full"`},
		{"pop3", []turn{{"", "+OK\r\n"}, {"STLS", "-ERR what\r\n"}}, `STLS is answered with "-ERR what"`},
		{"sieve", []turn{{"", "BYE \"busy\"\r\n"}}, `greets with "BYE \"busy\""`},
		{"sieve", []turn{{"", "\"SIEVE\" \"STARTTLS\"\r\nOK\r\n"}}, "STARTTLS is not offered"},
		{"sieve", []turn{{"", "\"STARTTLS\"\r\nOK\r\n"}, {"STARTTLS", "NO\r\n"}}, `STARTTLS is answered with "NO"`},
		{"ftp", []turn{{"", "421 busy\r\n"}}, `connecting is answered with "421 busy"`},
		{"ftp", []turn{{"", "220 x\r\n"}, {"AUTH TLS", "502 what\r\n"}}, `AUTH TLS is answered with "502 what", want 234`},
		{"ldap", []turn{{startTLSRequest, "\x30\x11\x02\x01\x01\x78\x0c\x0a\x01\x34\x04\x00\x04\x05no:\x1b!"}}, `result code 52: "no:\x1b!"`},
		{"ldap", []turn{{startTLSRequest, "\x30\x0c\x02\x01\x02\x78\x07\x0a\x01\x00\x04\x00\x04\x00"}}, "want an ExtendedResponse"},
		{"ldap", []turn{{startTLSRequest, "\x31\x0c\x02\x01\x01\x78\x07\x0a\x01\x00\x04\x00\x04\x00"}}, "want an ExtendedResponse"},
		{"ldap", []turn{{startTLSRequest, "\x30\x02\x02\x01"}}, "want an ExtendedResponse"},
		{"ldap", []turn{{startTLSRequest, "\x30\x05\x02\x01\x01\x78\x00"}}, "want a result code"},
		{"postgres", []turn{{sslRequest, "N"}}, "TLS is not offered"},
		{"postgres", []turn{{sslRequest, "E\x00"}}, `answered with "E", want S`},
		{"postgres", []turn{{sslRequest, ""}}, "the connection was closed"},
	} {
		addr := serve(t, func(c net.Conn) {
			for _, turn := range row.turns {
				io.ReadFull(c, make([]byte, len(turn.hear)))
				io.WriteString(c, turn.say)
			}
			// What is still to come is heard, so that no reset hides what was said.
			c.(*net.TCPConn).CloseWrite()
			io.Copy(io.Discard, c)
		})
		c := spec.Check{Type: spec.TLS, Addr: addr, StartTLS: row.protocol, Fingerprint: strings.Repeat("ab", 32)}
		f := lookAt(t, c, Vars{})
		if f.Kind != StartTLS || !strings.Contains(strings.ReplaceAll(f.Detail, `\\`, `\`), row.detail) || f.Want != c.Fingerprint {
			t.Errorf("%s %q: %+v, want %s", row.protocol, row.turns, f, row.detail)
		}
	}
}

// Active Directory writes every length in four bytes more.
func TestLDAPLengthsMayBeLong(t *testing.T) {
	cert := newCert(t, "directory", ecKey(t))
	long := "\x30\x84\x00\x00\x00\x10\x02\x01\x01\x78\x84\x00\x00\x00\x07\x0a\x01\x00\x04\x00\x04\x00"
	addr := serveAfter(t, []turn{{startTLSRequest, long}}, cert)
	c := spec.Check{Type: spec.TLS, Addr: addr, StartTLS: "ldap", Fingerprint: Fingerprint(cert.Leaf)}
	if f := lookAt(t, c, Vars{}); !f.OK {
		t.Errorf("%+v", f)
	}
}

// What follows the consent in plain text may be from anyone on the way.
func TestPlainTextAfterTheConsentIsRefused(t *testing.T) {
	cert := newCert(t, "mail", ecKey(t))
	for protocol, turns := range good {
		turns = slices.Clone(turns)
		turns[len(turns)-1].say += "250 injected\r\n"
		addr := serveAfter(t, turns, cert)
		c := spec.Check{Type: spec.TLS, Addr: addr, StartTLS: protocol, Fingerprint: Fingerprint(cert.Leaf)}
		if f := lookAt(t, c, Vars{}); f.Kind != StartTLS || !strings.Contains(f.Detail, `plain text after the consent to TLS: "250 injected\r\n"`) {
			t.Errorf("%s: %+v", protocol, f)
		}
	}
}

// flood says begin, and then part for as long as it is heard; sent is how much.
func flood(t *testing.T, begin, part string) (addr string, sent chan int) {
	t.Helper()
	sent = make(chan int, 1)
	return serve(t, func(c net.Conn) {
		n, err := io.WriteString(c, begin)
		for err == nil {
			var m int
			m, err = io.WriteString(c, part)
			n += m
		}
		sent <- n
	}), sent
}

// A port that never ends what it says took memory and time without end.
func TestEndlessGreetingsAreCutOff(t *testing.T) {
	for _, row := range []struct{ protocol, begin, part, detail string }{
		{"smtp", "220-", strings.Repeat("x", 1000), "more than 4096 bytes"},
		{"smtp", "", "220-more\r\n", "no end after 65536 bytes"},
		{"ftp", "220-\r\n", "whatever\r\n", "no end after 65536 bytes"},
		{"imap", "* OK ready\r\n", "* more\r\n", "no end after 65536 bytes"},
		{"sieve", "", "\"X\"\r\n", "no end after 65536 bytes"},
		{"pop3", "+OK ", strings.Repeat("x", 1000), "more than 4096 bytes"},
		{"ldap", "\x30\x84\x7f\xff\xff\xff", strings.Repeat("x", 1000), "want an element of at most 4096 bytes"},
		{"ldap", "\x30\x80", strings.Repeat("x", 1000), "want an element of at most 4096 bytes"},
		{"postgres", "Sxxx", strings.Repeat("x", 1000), "plain text after the consent"},
	} {
		addr, sent := flood(t, row.begin, row.part)
		c := spec.Check{Type: spec.TLS, Addr: addr, StartTLS: row.protocol, Fingerprint: strings.Repeat("ab", 32), Timeout: 20 * time.Second}
		if f := lookAt(t, c, Vars{}); f.Kind != StartTLS || !strings.Contains(f.Detail, row.detail) || len(f.Detail) > 1000 {
			t.Errorf("%s %q: %+v, want %s", row.protocol, row.begin, f, row.detail)
		}
		<-sent // the connection was closed
	}
}

// One byte now and then held a look for ever, where each byte began a new wait.
func TestASlowDripEndsWithTheTimeout(t *testing.T) {
	for _, protocol := range spec.StartTLSProtocols {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			addr := serve(t, func(c net.Conn) {
				tick := time.NewTicker(50 * time.Millisecond)
				defer tick.Stop()
				for {
					if protocol != "postgres" { // one byte is its whole answer
						if _, err := c.Write([]byte("x")); err != nil {
							return
						}
					}
					select {
					case <-tick.C:
					case <-t.Context().Done():
						return
					}
				}
			})
			c := spec.Check{Type: spec.TLS, Addr: addr, StartTLS: protocol, Fingerprint: strings.Repeat("ab", 32), Timeout: time.Second}
			if f := lookAt(t, c, Vars{}); f.Kind != Timeout || f.Duration > 5*time.Second || !strings.Contains(f.Detail, protocol+" at "+addr) {
				t.Errorf("%+v", f)
			}
		})
	}
}

func TestTLSBehindAWordThatIsNotTLSIsAHandshakeFailure(t *testing.T) {
	addr := serve(t, func(c net.Conn) {
		io.ReadFull(c, make([]byte, len(sslRequest)))
		io.WriteString(c, "S")
		io.ReadFull(c, make([]byte, 5))
		fmt.Fprint(c, "HTTP/1.1 400 Bad Request\r\n\r\n")
	})
	c := spec.Check{Type: spec.TLS, Addr: addr, StartTLS: "postgres", Fingerprint: strings.Repeat("ab", 32)}
	if f := lookAt(t, c, Vars{}); f.Kind != Handshake {
		t.Errorf("%+v", f)
	}
}
