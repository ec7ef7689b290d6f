// Times as the reader's clock has them, or in UTC as the logs of servers do.

class Times {
  isUtc = $state(localStorage.getItem("times") === "utc");

  turn() {
    this.isUtc = !this.isUtc;
    localStorage.setItem("times", this.isUtc ? "utc" : "local");
  }
}

export const times = new Times();
