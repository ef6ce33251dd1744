#include <gtest/gtest.h>

#include <string>
#include <string_view>

#include "base/text.h"

namespace pyserve {
namespace {

TEST(Text, LeavesGoodTextAlone) {
  EXPECT_EQ(utf8_text("plain", 100), "plain");
  EXPECT_EQ(utf8_text("größe €5 𝄞", 100), "größe €5 𝄞");
  EXPECT_EQ(utf8_text("", 100), "");
}

TEST(Text, CutsBetweenCharacters) {
  EXPECT_EQ(utf8_text("plain", 3), "pla");
  EXPECT_EQ(utf8_text("a€b", 1), "a");
  EXPECT_EQ(utf8_text("a€b", 3), "a");
  EXPECT_EQ(utf8_text("a€b", 4), "a€");
  EXPECT_EQ(utf8_text("€", 0), "");
}

TEST(Text, PutsAQuestionMarkForEveryByteThatIsNoUtf8) {
  EXPECT_EQ(utf8_text("a\xFFz", 100), "a?z");
  EXPECT_EQ(utf8_text("\x80", 100), "?");
  EXPECT_EQ(utf8_text("\xC0\xAF", 100), "??");            // overlong '/'
  EXPECT_EQ(utf8_text("\xE0\x80\xAF", 100), "???");       // overlong again
  EXPECT_EQ(utf8_text("\xED\xA0\x80", 100), "???");       // a surrogate
  EXPECT_EQ(utf8_text("\xF4\x90\x80\x80", 100), "????");  // beyond U+10FFFF
  EXPECT_EQ(utf8_text("\xF0\x80\x80\x80", 100), "????");  // overlong
  EXPECT_EQ(utf8_text("\xE2\x82", 100), "??");            // cut short
  EXPECT_EQ(utf8_text("\xE2(\xAC", 100), "?(?");          // no continuation
  EXPECT_EQ(utf8_text(std::string_view("a\0b", 3), 100), std::string_view("a\0b", 3));
}

TEST(Text, AcceptsTheEdgesOfEveryLength) {
  for (const std::string_view edge :
       {"\x7F", "\xC2\x80", "\xDF\xBF", "\xE0\xA0\x80", "\xED\x9F\xBF", "\xEE\x80\x80",
        "\xEF\xBF\xBF", "\xF0\x90\x80\x80", "\xF4\x8F\xBF\xBF"}) {
    EXPECT_EQ(utf8_length(edge), edge.size());
  }
}

}  // namespace
}  // namespace pyserve
