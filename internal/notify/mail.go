package notify

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"mime"
	"mime/quotedprintable"
	"net"
	netmail "net/mail"
	netsmtp "net/smtp"
	"net/url"
	"os"
	"strconv"
	"time"

	"github.com/nicholas-fedor/shoutrrr/pkg/services/email/smtp"
)

// mail is a server that sends mail: smtp://user:password@host:587/?from=…&to=…, with
// Shoutrrr's settings. The text is sent as plain text, with usehtml too. Where no
// connection without TLS is meant, the URL says encryption=none or starttls=no.
func mail(u *url.URL) (way, error) {
	config := &smtp.Config{Port: 25, UseStartTLS: true, ClientHost: "localhost", Encryption: smtp.EncMethods.Auto, Auth: smtp.AuthTypes.Unknown}
	if err := config.SetURL(u); err != nil {
		return nil, err
	}
	config.FixEmailTags()
	from, err := netmail.ParseAddress(config.FromAddress)
	if err != nil {
		return nil, err
	}
	if config.FromName != "" {
		from.Name = config.FromName
	}
	var to []*netmail.Address
	for _, address := range config.ToAddresses {
		parsed, err := netmail.ParseAddress(address)
		if err != nil {
			return nil, err
		}
		to = append(to, parsed)
	}
	return func(ctx context.Context, title, text string) error {
		client, err := mailServer(ctx, config)
		if err != nil {
			return err
		}
		defer client.Close()
		var failed []error
		for _, each := range to {
			failed = append(failed, post(client, from, each, title, text))
		}
		return errors.Join(append(failed, client.Quit())...)
	}, nil
}

// mailServer is a session with the server, in which mail may be sent.
func mailServer(ctx context.Context, config *smtp.Config) (client *netsmtp.Client, err error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort(config.Host, strconv.Itoa(int(config.Port))))
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer func() {
		if err != nil {
			stop()
			conn.Close()
		}
	}()
	secured := &tls.Config{ServerName: config.Host, MinVersion: tls.VersionTLS12, InsecureSkipVerify: config.SkipTLSVerify}
	always := config.Encryption == smtp.EncMethods.ImplicitTLS || config.Encryption == smtp.EncMethods.Auto && config.Port == smtp.ImplicitTLSPort
	if always {
		conn = tls.Client(conn, secured)
	}
	if client, err = netsmtp.NewClient(conn, config.Host); err != nil {
		return nil, err
	}
	name := config.ClientHost
	if name == "auto" {
		if name, err = os.Hostname(); err != nil {
			return nil, err
		}
	}
	if err = client.Hello(name); err != nil {
		return nil, err
	}
	if can, _ := client.Extension("STARTTLS"); can && config.UseStartTLS && !always && config.Encryption != smtp.EncMethods.None {
		err = client.StartTLS(secured)
	} else if config.RequireStartTLS && !always {
		err = errors.New("the server has no STARTTLS")
	}
	if err != nil {
		return nil, err
	}
	auth, err := mailAuth(config)
	if err != nil || auth == nil {
		return client, err
	}
	err = client.Auth(auth)
	return client, err
}

func mailAuth(config *smtp.Config) (netsmtp.Auth, error) {
	switch of := smtp.AuthTypes; config.Auth {
	case of.CRAMMD5:
		return netsmtp.CRAMMD5Auth(config.Username, config.Password), nil
	case of.OAuth2:
		return smtp.OAuth2Auth(config.Username, config.Password), nil
	case of.Plain:
		return netsmtp.PlainAuth("", config.Username, config.Password, config.Host), nil
	case of.Unknown:
		if config.Username != "" {
			return netsmtp.PlainAuth("", config.Username, config.Password, config.Host), nil
		}
	case of.None:
	default:
		return nil, fmt.Errorf("no way to log in: %s", config.Auth)
	}
	return nil, nil
}

// post sends one message.
func post(client *netsmtp.Client, from, to *netmail.Address, title, text string) error {
	if err := client.Mail(from.Address); err != nil {
		return err
	}
	if err := client.Rcpt(to.Address); err != nil {
		return errors.Join(err, client.Reset())
	}
	w, err := client.Data()
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "From: %s\r\nTo: %s\r\nSubject: %s\r\nDate: %s\r\n", from, to, mime.QEncoding.Encode("utf-8", title), time.Now().Format(time.RFC1123Z))
	fmt.Fprint(w, "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n")
	body := quotedprintable.NewWriter(w)
	_, err = body.Write([]byte(text))
	return errors.Join(err, body.Close(), w.Close())
}
