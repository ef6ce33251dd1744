#include <gtest/gtest.h>

#include <array>
#include <cstddef>
#include <vector>

#include "base/claim.h"
#include "threads.h"

namespace pyserve {
namespace {

TEST(Claim, IsOpenUntilSomebodyWins) { EXPECT_EQ(Claim().outcome(), Outcome::kOpen); }

TEST(Claim, TheFirstToTryWinsAndAllLaterOnesLose) {
  Claim completed;
  EXPECT_TRUE(completed.try_complete());
  EXPECT_FALSE(completed.try_complete());
  EXPECT_FALSE(completed.try_cancel());
  EXPECT_FALSE(completed.try_expire());
  EXPECT_EQ(completed.outcome(), Outcome::kCompleted);

  Claim cancelled;
  EXPECT_TRUE(cancelled.try_cancel());
  EXPECT_FALSE(cancelled.try_complete());
  EXPECT_EQ(cancelled.outcome(), Outcome::kCancelled);

  Claim expired;
  EXPECT_TRUE(expired.try_expire());
  EXPECT_FALSE(expired.try_complete());
  EXPECT_EQ(expired.outcome(), Outcome::kExpired);
}

constexpr std::size_t kContenders = 3;  // completes, cancels, expires
constexpr std::array<Outcome, kContenders> kOutcomes{Outcome::kCompleted, Outcome::kCancelled,
                                                     Outcome::kExpired};

struct Contested {
  Claim claim;
  std::array<int, kContenders> note{};  // plain: contender i writes its own before it tries
  std::array<bool, kContenders> won{};
};

bool try_as(Claim& claim, std::size_t contender) {
  switch (contender) {
    case 0:
      return claim.try_complete();
    case 1:
      return claim.try_cancel();
    default:
      return claim.try_expire();
  }
}

TEST(Claim, OfThreeContendersExactlyOneWinsAndTheLosersSeeWhatItWrote) {
  constexpr std::size_t kRounds = 20'000;
  std::vector<Contested> contested(kRounds);
  std::array<std::size_t, kContenders> strangers{};  // losers that did not find the note
  run_together(kContenders, [&](std::size_t self) {
    for (Contested& one : contested) {
      one.note[self] = 1;
      one.won[self] = try_as(one.claim, self);
      if (!one.won[self]) {
        const std::size_t winner = static_cast<std::size_t>(one.claim.outcome()) - 1;
        strangers[self] += one.note[winner] == 1 ? 0 : 1;
      }
    }
  });
  for (const Contested& one : contested) {
    std::size_t wins = 0;
    for (std::size_t i = 0; i < kContenders; ++i) {
      wins += one.won[i] ? 1 : 0;
      if (one.won[i]) {
        EXPECT_EQ(one.claim.outcome(), kOutcomes[i]);
      }
    }
    EXPECT_EQ(wins, 1U);
  }
  EXPECT_EQ(strangers, (std::array<std::size_t, kContenders>{}));
}

// Two contenders, so that the loser knows the winner from its loss alone.
TEST(Claim, WhoLosesSeesWhatTheWinnerWroteBefore) {
  constexpr std::size_t kRounds = 20'000;
  std::vector<Contested> contested(kRounds);
  std::array<std::size_t, 2> strangers{};
  run_together(2, [&](std::size_t self) {
    for (Contested& one : contested) {
      one.note[self] = 1;
      if (!try_as(one.claim, self)) {
        strangers[self] += one.note[1 - self] == 1 ? 0 : 1;
      }
    }
  });
  EXPECT_EQ(strangers, (std::array<std::size_t, 2>{}));
}

TEST(Claim, WhoReadsTheOutcomeSeesWhatTheWinnerWroteBefore) {
  constexpr std::size_t kRounds = 20'000;
  std::vector<Contested> contested(kRounds);
  run_together(2, [&](std::size_t self) {
    for (Contested& one : contested) {
      if (self == 0) {
        one.note[0] = 1;
        EXPECT_TRUE(one.claim.try_complete());
      } else {
        ASSERT_TRUE(eventually([&] { return one.claim.outcome() != Outcome::kOpen; }));
        EXPECT_EQ(one.note[0], 1);
      }
    }
  });
}

}  // namespace
}  // namespace pyserve
