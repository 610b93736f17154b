// Letters and numbers of Unicode, as test/stacks/make-unicode.py found them in Hugging Face's tokenizers. Generated: do not edit.
#pragma once

enum class Class : unsigned char { Other, Letter, Number, Space, End };

// Ranges in rising order, as a run of pairs (distance from the end of the last range, length - 1). A value is written in base 45, high
// digits first: '#'..'O' is a last digit, 'P'..'|' a digit that another follows.
inline const char* const kLetters =
    R"(Q7<)<Q%#-#'#(9$A$Z*'.1'*#$#RJ'$$%&$#)#$%$#$6$QH$S&+SA$H%#)KQ=='&Q#MF$$R+$#2$*$-%%#3#$@@QN.#;C,$'#(8'#,#&#:;*-(:$(4LQ0Q+&#5#*,2)"
    R"(2'*%$%8$)$#&&&#3#0$$%1$-#+('$%8$)$$$$$$B&$#6%3+$%$8$)$$$'&#5#2$:#.*%$%8$)$$$'&#A$$%2#4#$(&%$&&$$#$$&$&%&.9#Q**$%$9$2&#=%%#%$A#)"
    R"('*$%$9$,$'&#B$$$2$4+$%$K%#3#(%+%;((4&:$+$#%)Q0Q%$$/)Q0$$#$'$:$#$,$$,#%'$#8&C#Q5*$F>'R<M7#3('&&#&$*%'//#4H$#(#%M$W4$&%)$#$&%K$&)"
    R"(%C$&%)$#$&%1$Q.$&%Q8H23QK%(&]E%3$<(Q@)**405141/$%2Q)F#'#Q9QN*'%D$#(Q;-AQ'@%'.N'<Q,9,Q*QH#R&Q$4*Q,@0$-N=FL%-F%-(M%%L&$($$&#(T.Q)"
    R"(6V*%(%H%(%*$#$#$#$A%Q*$)$#&%$)&&%('/(%$)R=#0#3/R.#'#%,$#&')#$#$#$&$-%&(''#Q*$Q^?U&)&&$/H$#(#%Q-*#39,)$)$)$)$)$)$)$)QF#Z6$M'($')"
    R"(QK)%$QO$&(M$R&4BQ&2[4S[8Q6Zz3Q9Q#%UN&2-$7Q$3A%Q;Q'+%R/%Q8%$$#$*82$%$&$9@Q)1Q'Q4(&#$$.>-9<?*Q$?#3'$,-'$K:%$*79&#&Q'$#&$%'%#$#;%)"
    R"(%-*%/(%(%(,)$)$M$0)R;@Ug./9'Q&TWHX(%R2I)/'(#$,$/$'$#$$$$$R4DX%5Q5%Q+K.R='$ROG<)<.QN&(%(%(%%F.$<$5$$$1%0ERCX@?&Q&Q%B06$*)H-@%F')"
    R"(*Q&S95F'F'J+Q)/-$1$)$$$-$1$)$$&Q)/VK,8-*;($L$+Q;(%#$N$$&#%9-9,AQ75$$-8-<Q<Q-)$Q6#2&$%$?M?&?F*$>>Q+-8-504R7Q>Q-Q(0Q(0FI>,9U<L)$)"
    R"(3%Q1?-#+8M4Q$7>9/Q*Q/$%#0OC;=F@#%#+E&#/Q%1&8#$#F4$;6$Q5)$#$&$1$,*Q$I*%$%8$)$$$'&#5#/'A,$#%#$H$#<#$#OQ*5&7%AQ%7$$#T'Q$L&GQ%7#Q1)"
    R"(M0#Q==H)T(NR=Q5B*%#%*$$$:2#$#R'*%I3#$#?#-J*#8#.Q#6#5Q>T6CB+$G4#Q'@R9)$$$H8#<($$$B1#W/52#$/$DRE#QEd8U(T2Q]=R)2gG4(<Q{E(\MSa$@w*)"
    R"(\?*A4QD4@5Q%3&B7(5Y>OTBQ5RIQ@(#Q8/Q6$$#?SQ2+k9L,Tb<&$)$$$V72#@%%#1&+XFQV0R3(/&+*,R{(QJ$Q<$$%#%$%&$.$#$)$Q6$&%*$)$>$&$'$#&)$W;%)"
    R"(;$;$A$;$A$;$A$;$A$;$*xOA)(UGQ3S.O-)3#W)@5NZE>U&@%#[#)$&$$$1$T3Q1Q9*#jE&$=$$$#%#$,$&$#$#)#'#$#$#$%$$$#%#$#$#$#$#$$$#%&$)$&$&$#$)"
    R"(,$3(%$'$3RX-eT1CRR0)TL%Rv$1So%2]GQYG\$q8RcD(RS))";
inline const char* const kNumbers =
    R"(Q&,RA$(#%%p$,RO,T5,Y*,R?,'(R5,R?,R?,%(R7/R<,+)R0,R1)*5R6,R),R?,Q<6UN,Q<,_O6c=%U1,),9,VA,RI-SA,),T%,QL,RO,),g.#&(),T5Q(%'`)Q1QD)"
    R"(8^#@nF#a/#<+1%W?&S&,A*$1C,J1^j3,T+,W((S6,I,T5,9,QL,Y$,ZfA,ZNO/Q.4$W==G&@#+#RO'T9,dM*<)J+QA'9(S<$%2%Q#Q6+Q*$A%QA'R1*;*L)W2(Q&,))"
    R"(,V+AS:,M&R9)RO@RI,Q2,S,,*6U=,W>,R?,X1,R/,)6QB.Y25R&,^C,QL?U%,Q<,Q,,WN,R/7gCR7Wn?,QW%,QL,RO,$)[B,UH9WE%[qL,pI6/6R5;h@Q'QW?,Y4,[)"
    R"(*,U9,_L+RI,a=Q0$%$&QBO$1e4/Q`M,)";

inline Class unicode_class(int code) {
  static const struct Table {
    Class of[0x110000] = {};
    void fill(const char* ranges, Class k) {
      for (int at = 0, edge = 0, value = 0; *ranges; ++ranges) {
        value = value * 45 + (*ranges < 'P' ? *ranges - '#' : *ranges - 'P');
        if (*ranges >= 'P') continue;
        if (edge ^= 1) at += value; else for (int i = 0; i <= value; ++i) of[at++] = k;
        value = 0;
      }
    }
    Table() {
      fill(kLetters, Class::Letter);
      fill(kNumbers, Class::Number);
      for (int c : {9, 10, 11, 12, 13, 32, 133, 160, 5760, 8232, 8233, 8239, 8287, 12288}) of[c] = Class::Space;
      for (int c = 8192; c <= 8202; ++c) of[c] = Class::Space;
    }
  }& table = *new Table;
  return table.of[code];
}
