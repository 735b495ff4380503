package kafka_test

import (
	"testing"

	"github.com/keyturn/keyturn/internal/backend/kafka"
	"github.com/keyturn/keyturn/internal/rotation/rotationtest"
)

func TestPage(t *testing.T) {
	rotationtest.Page(t, "kafka", kafka.Section, kafka.Settings{}.Fields(), kafka.Settings{})
}
