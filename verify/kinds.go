package verify

// Kind says what is wrong, so that an operator knows where to look and a
// baseline can tell an old failure from a new one.
type Kind string

// The kinds. A finding that is OK has none.
const (
	Dial         Kind = "dial"
	Timeout      Kind = "timeout"
	StartTLS     Kind = "starttls"
	Handshake    Kind = "handshake"
	WrongCert    Kind = "wrong-cert"
	Expired      Kind = "expired"
	NotYetValid  Kind = "not-yet-valid"
	Expiring     Kind = "expiring"
	Chain        Kind = "chain"
	Hostname     Kind = "hostname"
	Version      Kind = "version"
	ALPN         Kind = "alpn"
	HTTP         Kind = "http"
	HTTPStatus   Kind = "http-status"
	Body         Kind = "body"
	JSON         Kind = "json"
	Expect       Kind = "expect"
	Start        Kind = "start"
	Exit         Kind = "exit"
	NotRunning   Kind = "not-running"
	WrongRoot    Kind = "wrong-root"
	NotRestarted Kind = "not-restarted"
	Restarting   Kind = "restarting"
	Process      Kind = "process"
	Unsteady     Kind = "unsteady"
	Spec         Kind = "spec"
	Cancelled    Kind = "cancelled"
)

// Meaning is what a kind means, and what to do about it, for people.
type Meaning struct {
	Kind      Kind
	Means, Do string
}

// Meanings lists every kind, in the order of a look.
var Meanings = []Meaning{
	{Dial, "no connection: nothing listens there, or the name is not known", "see whether the program runs and on which address it listens (`ss -ltn`), and whether the name resolves"},
	{Timeout, "no answer in time; the message says to what", "see whether the program hangs or a firewall drops the packets; a program that starts slowly needs a longer `-verify-total`"},
	{StartTLS, "connected, but the words before the handshake went wrong: TLS is not offered, or another protocol is spoken, or plain text follows the consent", "look whether TLS is switched on for this port and `starttls` names its protocol; a port with TLS from the first byte (465, 993, 995) takes no `starttls`"},
	{Handshake, "connected, but no TLS, or none that both accept", "look whether the port speaks TLS at all, and whether the key fits the certificate; with `key`, whether there is such a certificate"},
	{WrongCert, "another certificate is served; the message says which", "the reload did not take, or another virtual host or program answers: look at `sni`, at which file the configuration names, and at who listens on the port"},
	{Expired, "the certificate is past its end", "deploy a new one; look at the clock of the host"},
	{NotYetValid, "the certificate is not valid yet", "look at the clock of the host, or wait"},
	{Expiring, "the certificate is valid for less time than `minvalid`", "deploy a new one"},
	{Chain, "the certificate does not lead to a trusted one", "serve the certificates in between too (the whole chain in the file), or give the right `roots`"},
	{Hostname, "the certificate is for other names", "look at `hostname` and `sni`, or the host in `url`, and at the names in the certificate; an http check that asks by another name takes `insecure`"},
	{Version, "no TLS version as high as `min`, or with `key` none as low as 1.2", "look at which versions the program is allowed"},
	{ALPN, "the protocol of `alpn` is not agreed on", "look at which protocols the program offers"},
	{HTTP, "connected, but no whole answer in HTTP", "look whether the port speaks HTTP, with or without TLS as `url` says, and at the program's log"},
	{HTTPStatus, "another status", "look at the program's log; a redirect is not followed"},
	{Body, "the answer does not contain the text", "compare what the message shows; an old version may still be running"},
	{JSON, "the body is no JSON, or the field is missing or another", "compare what the message shows; an old version may still be running"},
	{Expect, "the port says something else, or nothing", "compare what the message shows"},
	{Start, "the program of an `exec` check cannot be started", "look at its path and mode"},
	{Exit, "the program ended with another status than 0, or by a signal", "read what it said"},
	{NotRunning, "the unit or pidfile has no main process", "look at its log (`journalctl -u`)"},
	{WrongRoot, "the main process runs from somewhere else than NEWROOT", "look at the paths in the unit, and whether the hook restarts it"},
	{NotRestarted, "the main process was there before the switch", "let the hook restart it"},
	{Restarting, "the main process is another one than at an earlier look: it has ended in between, and was started again; or systemd has just started it again", "look at the log of the unit for why it ends"},
	{Process, "the main process cannot be looked at", "look at the rights of the agent, and whether systemd runs here"},
	{Unsteady, "the last look passed, but not often enough in a row", "more than one program may answer, and not all were reloaded: the message says what failed before"},
	{Spec, "the check cannot be carried out", "mend the check, or what it names in NEWROOT"},
	{Cancelled, "the looking was ended first", "nothing: it says nothing about what was looked at"},
}

// Explain returns what k means and what to do about it.
func (k Kind) Explain() Meaning {
	for _, m := range Meanings {
		if m.Kind == k {
			return m
		}
	}
	return Meaning{Kind: k}
}
