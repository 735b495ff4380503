package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// A config is the environment, read once. The credential itself is read at
// every login.
type config struct {
	urlFile, user, userFile, passwordFile string
	host, port, database, caFile          string
	dir, task, healthFile, unhealthyUser  string
	consul, consulTokenFile, consulPrefix string
	kafka                                 *kafkaLoad // nil: something else is used
	tls                                   *tlsLoad
	vault, roleID, secretIDFile, vaultKey string
	every, timeout                        time.Duration
}

// readConfig reads the environment.
func readConfig(getenv func(string) string) (config, error) {
	c := config{
		urlFile:       getenv("DATABASE_URL_FILE"),
		user:          getenv("POSTGRES_USER"),
		userFile:      getenv("POSTGRES_USER_FILE"),
		passwordFile:  getenv("POSTGRES_PASSWORD_FILE"),
		host:          getenv("POSTGRES_HOST"),
		port:          getenv("POSTGRES_PORT"),
		database:      getenv("POSTGRES_DB"),
		caFile:        getenv("POSTGRES_CA_FILE"),
		dir:           getenv("LOAD_DIR"),
		task:          getenv("LOAD_TASK"),
		healthFile:    getenv("LOAD_HEALTH_FILE"),
		unhealthyUser: getenv("LOAD_UNHEALTHY_USER"),
	}
	if c.consul = getenv("CONSUL_HTTP_ADDR"); c.consul != "" {
		c.consulTokenFile, c.consulPrefix, c.caFile = getenv("CONSUL_HTTP_TOKEN_FILE"), getenv("LOAD_KV_PREFIX"), getenv("CONSUL_CACERT")
	}
	if brokers := getenv("KAFKA_BROKERS"); brokers != "" {
		c.caFile = getenv("KAFKA_CA_FILE")
		c.kafka = &kafkaLoad{brokers: brokers, user: getenv("KAFKA_USERNAME"), passwordFile: getenv("KAFKA_PASSWORD_FILE"), mechanism: getenv("KAFKA_SASL_MECHANISM"), topic: getenv("LOAD_TOPIC"), group: getenv("LOAD_GROUP"), tell: getenv("LOAD_TELL")}
	}
	var err error
	if c.tls, err = readTLS(getenv); err != nil {
		return config{}, err
	}
	if c.vault = getenv("VAULT_ADDR"); c.vault != "" {
		c.roleID, c.secretIDFile, c.vaultKey, c.caFile = getenv("VAULT_ROLE_ID"), getenv("VAULT_SECRET_ID_FILE"), getenv("LOAD_VAULT_KEY"), getenv("VAULT_CACERT")
	}
	if c.task == "" {
		host, _ := os.Hostname()
		c.task = host + "-" + rand.Text()[:8]
	}
	if c.healthFile == "" {
		c.healthFile = "/tmp/loginload.health"
	}
	var err1, err2 error
	c.every, err1 = duration(getenv, "LOAD_EVERY", 20*time.Millisecond)
	c.timeout, err2 = duration(getenv, "LOAD_TIMEOUT", 20*time.Second)
	if err := errors.Join(err1, err2); err != nil {
		return config{}, err
	}
	if c.tls == nil && c.kafka == nil && c.consul == "" && c.vault == "" && c.urlFile == "" && (c.passwordFile == "" || c.user == "" && c.userFile == "") {
		return config{}, errors.New("set DATABASE_URL_FILE, or POSTGRES_USER and POSTGRES_PASSWORD_FILE")
	}
	return c, nil
}

// duration reads a positive duration, or takes the default.
func duration(getenv func(string) string, name string, otherwise time.Duration) (time.Duration, error) {
	text := getenv(name)
	if text == "" {
		return otherwise, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		return 0, fmt.Errorf("%s: %q is no positive duration", name, text)
	}
	return d, nil
}

// connConfig reads the credential from where it is mounted now. Its errors name
// files, never what is in them.
func (c config) connConfig() (*pgx.ConnConfig, error) {
	if c.urlFile != "" {
		text, err := readLine(c.urlFile)
		if err != nil {
			return nil, err
		}
		config, err := pgx.ParseConfig(withTLS(text, c.caFile))
		if err != nil {
			return nil, fmt.Errorf("%s holds no URL", c.urlFile)
		}
		return config, nil
	}
	user, err := c.user, error(nil)
	if c.userFile != "" {
		if user, err = readLine(c.userFile); err != nil {
			return nil, err
		}
	}
	password, err := readLine(c.passwordFile)
	if err != nil {
		return nil, err
	}
	config, err := pgx.ParseConfig(fmt.Sprintf("host='%s' port='%s' dbname='%s' sslmode=verify-full sslrootcert='%s'", c.host, c.port, c.database, c.caFile))
	if err != nil {
		return nil, fmt.Errorf("reading POSTGRES_HOST, POSTGRES_PORT, POSTGRES_DB, POSTGRES_CA_FILE: %w", err)
	}
	config.User, config.Password = user, password
	return config, nil
}

// withTLS adds what the URL leaves out.
func withTLS(url, caFile string) string {
	if strings.Contains(url, "sslrootcert=") || caFile == "" {
		return url
	}
	separator := "?"
	if strings.Contains(url, "?") {
		separator = "&"
	}
	return url + separator + "sslmode=verify-full&sslrootcert=" + caFile
}

// readLine reads a file and trims one newline at its end.
func readLine(file string) (string, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	return strings.TrimSuffix(string(data), "\n"), nil
}
